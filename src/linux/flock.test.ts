import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { tryLock } from './flock.ts';

test('a lock is held by one open file at a time, until it is closed', () => {
  const directory = mkdtempSync(join(tmpdir(), 'flock-'));
  try {
    const [first, second] = [openSync(join(directory, 'a'), 'w'), openSync(join(directory, 'a'), 'w')];
    assert.equal(tryLock(first), true);
    assert.equal(tryLock(first), true);
    assert.equal(tryLock(second), false);
    closeSync(first);
    assert.equal(tryLock(second), true);
    closeSync(second);
    assert.throws(() => tryLock(-1), { code: 'EBADF', syscall: 'flock' });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
