import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openDebugfs } from '../../src/linux/debugfs.ts';
import { scratchFor } from '../helpers/backup.ts';

test('debugfs is mounted for one process alone if it is not mounted yet', async (t) => {
  const mounts = () =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(' debugfs '));
  const before = mounts();
  const directory = scratchFor(t);
  const opened = await openDebugfs(directory);
  try {
    assert.ok(existsSync(join(opened.path, 'block')));
    assert.deepEqual(mounts(), before);
    assert.deepEqual(readdirSync(directory), []);
  } finally {
    opened.close();
  }
});
