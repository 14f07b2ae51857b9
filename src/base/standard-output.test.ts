/** Tests how failed writes to standard output are reported. */
import assert from 'node:assert/strict';
import { closeSync, openSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { type OutputFile, StandardOutput } from './standard-output.ts';

function failing(code: string, after = 0): OutputFile & { taken: string } {
  return {
    taken: '',
    write(data) {
      if (this.taken.length >= after) throw Object.assign(new Error(code), { code });
      this.taken += Buffer.from(data.subarray(0, 1)).toString();
      return 1;
    },
    sync: () => undefined,
  };
}

test('the whole text is written, even if each write takes only a little', () => {
  const file = failing('ENOSPC', 100);
  const output = new StandardOutput(file);
  output.write('hello\n');
  output.finish(true);
  assert.equal(file.taken, 'hello\n');
});

test('a text that did not fit completely is a failure, and nothing is written after it', () => {
  for (const code of ['ENOSPC', 'EIO', 'EBADF', 'EDQUOT']) {
    const file = failing(code, 3);
    const output = new StandardOutput(file);
    output.write('hello\n');
    output.write('more\n');
    assert.throws(() => output.finish(), { code: 'FILE_ERROR', message: new RegExp(code) });
    assert.equal(file.taken, 'hel');
    assert.equal(output.hasEnded, true);
  }
});

test('a reader that has ended is a failure only for text that is stored nowhere else', () => {
  const output = new StandardOutput(failing('EPIPE'));
  output.write('hello\n');
  assert.equal(output.hasEnded, true);
  output.finish();
  assert.throws(() => output.finish(true), { code: 'FILE_ERROR', message: /EPIPE/ });
});

test('an error that occurs only when the file is synced is a failure', () => {
  const output = new StandardOutput({
    write: (data) => data.length,
    sync: () => {
      throw Object.assign(new Error('quota'), { code: 'EDQUOT' });
    },
  });
  output.write('hello\n');
  assert.throws(() => output.finish(), { code: 'FILE_ERROR', message: /EDQUOT/ });
});

test('a write waits for a pipe that is full for a moment', () => {
  let tries = 0;
  const output = new StandardOutput({
    write: (data) => {
      if (++tries < 3) throw Object.assign(new Error('full'), { code: 'EAGAIN' });
      return data.length;
    },
    sync: () => undefined,
  });
  output.write('hello\n');
  output.finish(true);
  assert.equal(tries, 3);
});

test('a write to /dev/full is reported as a failure', () => {
  const fd = openSync('/dev/full', 'w');
  try {
    const output = new StandardOutput({ write: (data) => writeSync(fd, data), sync: () => undefined });
    output.write('x');
    assert.throws(() => output.finish(), { code: 'FILE_ERROR', message: /ENOSPC/ });
  } finally {
    closeSync(fd);
  }
});
