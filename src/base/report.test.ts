import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AgentError } from './errors.ts';
import { reportError } from './report.ts';

test('an error is one line that ends with the next step', () => {
  const error = new AgentError('TARGET_TOO_SMALL', 'The target has 5 bytes\n  the device 6', {
    hint: 'make it larger',
  });
  const report = reportError('dattocli', error);
  assert.equal(report.line, 'dattocli: The target has 5 bytes; the device 6 (make it larger)');
  assert.equal(report.exitCode, 1);
});

test('under --json an error is the error document', () => {
  const report = reportError('x', new AgentError('BAD_USAGE', 'no', { hint: 'yes' }), { json: true });
  assert.deepEqual(JSON.parse(report.line), { code: 'BAD_USAGE', message: 'no', hint: 'yes' });
  assert.equal(report.exitCode, 2);
});

test('unknown errors become INTERNAL', () => {
  const report = reportError('x', new TypeError('what'));
  assert.equal(report.error.code, 'INTERNAL');
  assert.equal(report.line, 'x: what');
  assert.equal(report.exitCode, 1);
});
