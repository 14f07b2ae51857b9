import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeKeyFile, replaceKeyFile } from './key-file.ts';

const scratch = mkdtempSync(join(tmpdir(), 'key-file-'));
after(() => rmSync(scratch, { recursive: true }));

test('a key file is created with its directory, for its owner alone, and replaces no other file', async () => {
  const path = join(scratch, 'keys/deep/a.key');
  await makeKeyFile(path, 'text\n');
  assert.equal(readFileSync(path, 'utf8'), 'text\n');
  assert.deepEqual([statSync(path).mode & 0o777, statSync(join(path, '..')).mode & 0o777], [0o600, 0o700]);
  await assert.rejects(makeKeyFile(path, 'other\n'), { code: 'FILE_EXISTS' });
  assert.equal(readFileSync(path, 'utf8'), 'text\n');
  symlinkSync(join(scratch, 'elsewhere'), join(scratch, 'link.key'));
  await assert.rejects(makeKeyFile(join(scratch, 'link.key'), 'x'), { code: 'FILE_EXISTS' });
});

test('a key file is replaced in one step, even if a draft was left', async () => {
  const path = join(scratch, 'b.key');
  await makeKeyFile(path, 'old\n');
  mkdirSync(join(scratch, 'sub'));
  await replaceKeyFile(`${path}.new`, 'left\n');
  await replaceKeyFile(path, 'new\n');
  assert.equal(readFileSync(path, 'utf8'), 'new\n');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.ok(!readdirSync(scratch).includes('b.key.new'));
  await assert.rejects(replaceKeyFile(join(scratch, 'none/c.key'), 'x'), { code: 'FILE_ERROR' });
});
