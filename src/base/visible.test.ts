import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { createLog } from './log.ts';
import { AgentError } from './errors.ts';
import { reportError } from './report.ts';
import { StandardOutput } from './standard-output.ts';
import { visible, visibleLine } from './visible.ts';

/** Sequences that clear the screen, set the title, use C1, go back, hide the text after them or reorder it. */
const evil = 'a\u001b[2J\u001b]0;x\u0007b\u009b2Jc\rd\u0008\u007f\u202ee\u2028f';
const acts = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;

test('control characters of a terminal are escaped, and all other text stays', () => {
  assert.equal(visible('\u001b[2J\u009bK'), '\\u001b[2J\\u009bK');
  assert.equal(visible('a\tb\nDätten 文件 👍🏽 \\u001b'), 'a\tb\nDätten 文件 👍🏽 \\u001b');
  assert.equal(visibleLine('one\ntwo'), 'one\\u000atwo');
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      assert.doesNotMatch(visible(text), acts);
      assert.doesNotMatch(visibleLine(text), /[\n\t]/);
    }),
  );
});

test('a JSON document keeps its meaning', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      assert.deepEqual(JSON.parse(visible(JSON.stringify({ text }))), { text });
    }),
  );
});

test('results, errors and logs contain no control characters', () => {
  let written = '';
  const output = new StandardOutput({
    write: (data) => {
      written += Buffer.from(data).toString();
      return data.length;
    },
    sync: () => undefined,
  });
  output.write(`${evil}\n`);
  const error = new AgentError('DEVICE_BUSY', `label "${evil}\nforged: line"`, { hint: evil });
  const plain = reportError('dattocli', error).line;
  assert.doesNotMatch(plain, /\n/);
  written += plain + reportError('dattocli', error, { json: true }).line;
  const log = createLog({
    hold: () => undefined,
    release: () => undefined,
    write: (line) => (written += line),
  });
  log.warn({ device: evil }, evil);
  assert.doesNotMatch(written, acts);
  assert.match(written, /\\u001b\[2J/);
});
