import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { Descriptor } from './descriptor.ts';

test('a closed descriptor does not give its number, also if another file has the number now', () => {
  const descriptor = new Descriptor(openSync('/dev/null', 'r'), 'the file');
  const number = descriptor.fd;
  descriptor.close();
  const next = openSync('/dev/zero', 'r');
  try {
    assert.equal(next, number, 'the kernel gives the number away again');
    assert.throws(() => descriptor.fd, { code: 'INTERNAL', message: 'the file is used after it was closed' });
    // A second close must not close the other file.
    descriptor.close();
    assert.ok(descriptor.closed);
  } finally {
    closeSync(next);
  }
});
