import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { replaceFile, syncDirectory } from './durable.ts';

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'durable-'));
});
after(() => rm(directory, { recursive: true }));

test('a file replaces the old one, also if an earlier attempt left a temporary file', async () => {
  const path = join(directory, 'record');
  await writeFile(`${path}.new`, 'left by an earlier attempt');
  await replaceFile(path, 'begin ', new Uint8Array(2 ** 20).fill(0x78), ' end');
  const text = await readFile(path, 'latin1');
  assert.deepEqual([text.length, text.slice(0, 7), text.slice(-5)], [2 ** 20 + 10, 'begin x', 'x end']);
  await replaceFile(path, '');
  assert.deepEqual([(await stat(path)).size, (await stat(path)).mode & 0o777], [0, 0o600]);
  assert.deepEqual(await readdir(directory), ['record']);
});

test('syncing a missing directory or a file that is not a directory is an error', async () => {
  const path = join(directory, 'file');
  await writeFile(path, '');
  await assert.rejects(syncDirectory(path), { code: 'ENOTDIR' });
  const missing = join(directory, 'nowhere', 'file');
  await assert.rejects(replaceFile(missing, ''), {
    code: 'FILE_ERROR',
    message: `${missing} cannot be written: ENOENT`,
  });
});
