import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { give, withHeldFolder } from './directory-owner.ts';

test('an owner that cannot be set does not fail a write; other errors do', async () => {
  const owner = { uid: 1000, gid: 1001 };
  const given: number[][] = [];
  await give({ chown: (...ids) => Promise.resolve(void given.push(ids)) }, owner);
  assert.deepEqual(given, [[1000, 1001]]);
  const failing = (code: string) => ({
    chown: () => Promise.reject(Object.assign(new Error(code), { code })),
  });
  for (const code of ['EPERM', 'EINVAL', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP']) await give(failing(code), owner);
  for (const code of ['EIO', 'EROFS', 'EDQUOT']) await assert.rejects(give(failing(code), owner), { code });
});

test('a folder that is replaced by a link during use does not lead to another place', async (t) => {
  const base = mkdtempSync(join(tmpdir(), 'owner-'));
  t.after(() => rmSync(base, { recursive: true }));
  const [root, elsewhere] = [join(base, 'vault'), join(base, 'elsewhere')];
  for (const path of [elsewhere, join(root, 'packs/ab')]) mkdirSync(path, { recursive: true });
  const owner = { uid: process.geteuid!(), gid: process.getegid!() };
  await withHeldFolder(root, 'packs/ab', owner, async (path) => {
    renameSync(join(root, 'packs'), join(root, 'aside'));
    symlinkSync(elsewhere, join(root, 'packs'));
    await writeFile(join(path, 'one'), 'x');
  });
  assert.deepEqual(readdirSync(join(root, 'aside/ab')), ['one']);
  assert.deepEqual(readdirSync(elsewhere), []);
  const never = () => Promise.reject(new Error('it was called'));
  await assert.rejects(withHeldFolder(root, 'packs', owner, never), {
    code: 'VAULT_DENIED',
    message: new RegExp(`${root}/packs is not a folder`),
  });
  writeFileSync(join(root, 'file'), '');
  await assert.rejects(withHeldFolder(root, 'file', owner, never), { code: 'VAULT_DENIED' });
  await assert.rejects(withHeldFolder(root, 'none/ab', owner, never), { code: 'ENOENT' });
  // The root itself may be a link, but not to a directory of another owner.
  symlinkSync(root, join(base, 'link'));
  assert.match(
    await withHeldFolder(join(base, 'link'), '', owner, (path) => Promise.resolve(path)),
    /^\/proc\//,
  );
  await assert.rejects(withHeldFolder(root, '', { uid: owner.uid + 1, gid: 0 }, never), {
    code: 'VAULT_DENIED',
    message: /belongs to user/,
  });
});
