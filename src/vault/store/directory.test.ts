import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { collect } from '../../../test/helpers/collect.ts';
import { openDirectoryStore } from './directory.ts';
import { directoryFailure } from './directory-errors.ts';
import type { ObjectStore } from './object-store.ts';
import { retryingStore } from './retry.ts';
import { storeContract } from '../../../test/contracts/object-store.contract.ts';

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'dattod-store-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function opened(wrap: (store: ObjectStore) => ObjectStore) {
  const path = mkdtempSync(join(tmpdir(), 'dattod-store-'));
  const store = wrap(await openDirectoryStore(join(path, 'deep/er'), { create: true }));
  return {
    store,
    close: async () => {
      await store.close();
      const left = existsSync(join(path, 'deep/er/tmp')) ? readdirSync(join(path, 'deep/er/tmp')) : [];
      rmSync(path, { recursive: true, force: true });
      assert.deepEqual(left, [], 'nothing is left in tmp/');
    },
  };
}

storeContract('directory', () => opened((store) => store));
storeContract('directory, with retries', () => opened((store) => retryingStore(store)), {
  manyKeys: 100,
  largest: 2 ** 20,
});

test('only the owner may read, regardless of the umask', async (t) => {
  const root = join(scratch(t), 'v');
  const store = await openDirectoryStore(root, { create: true });
  await store.put('packs/ab/1', Buffer.from('x'));
  for (const [path, mode] of [
    ['', 0o700],
    ['packs/ab', 0o700],
    ['tmp', 0o700],
    ['packs/ab/1', 0o600],
  ] as const)
    assert.equal(statSync(join(root, path)).mode & 0o777, mode, path);
});

test('a place without a vault is not found', async (t) => {
  const path = scratch(t);
  await assert.rejects(openDirectoryStore(join(path, 'none')), {
    code: 'VAULT_NOT_FOUND',
    message: /does not exist/,
  });
  await assert.rejects(openDirectoryStore(path), { code: 'VAULT_NOT_FOUND', message: /vault\.json/ });
  await writeFile(join(path, 'file'), '');
  await assert.rejects(openDirectoryStore(join(path, 'file')), {
    code: 'VAULT_NOT_FOUND',
    message: /not a directory/,
  });
  await assert.rejects(openDirectoryStore(join(path, 'file/below')), { code: 'VAULT_NOT_FOUND' });
  await (await openDirectoryStore(path, { create: true })).put('vault.json', Buffer.from('{}'));
  await openDirectoryStore(path);
});

test(
  'a vault that vanished, as after umount, is reported missing, and is neither empty nor ' + 'created again',
  async (t) => {
    const path = scratch(t);
    const root = join(path, 'v');
    const store = await openDirectoryStore(root, { create: true });
    await store.put('vault.json', Buffer.from('{}'));
    await store.put('points/1', Buffer.from('x'));
    renameSync(root, join(path, 'away'));
    for (const mountPoint of [false, true]) {
      if (mountPoint) mkdirSync(root);
      const gone = { code: 'VAULT_NOT_FOUND' };
      await assert.rejects(store.get('points/1'), gone);
      await assert.rejects(store.head('points/1'), gone);
      await assert.rejects(store.delete('points/1'), gone);
      await assert.rejects(store.put('points/2', Buffer.from('y')), gone);
      await assert.rejects(collect(store.list('')), gone);
      await assert.rejects(collect(store.list('points/')), gone);
      await assert.rejects(store.cleanTemporary(), gone);
      assert.equal(existsSync(join(root, 'points')), false);
    }
    rmSync(root, { recursive: true });
    renameSync(join(path, 'away'), root);
    assert.equal((await store.get('points/1')).toString(), 'x');
    await store.put('points/2', Buffer.from('y'));
  },
);

test('a copy of a vault without empty folders works', async (t) => {
  const root = scratch(t);
  const store = await openDirectoryStore(root, { create: true });
  await store.put('vault.json', Buffer.from('{}'));
  await store.put('packs/ab/1', Buffer.from('x'));
  rmSync(join(root, 'tmp'), { recursive: true });
  rmSync(join(root, 'packs'), { recursive: true });
  await store.put('packs/ab/2', Buffer.from('y'));
  assert.deepEqual(
    (await collect(store.list('packs/'))).map(({ key }) => key),
    ['packs/ab/2'],
  );
  assert.deepEqual(await (await openDirectoryStore(root)).cleanTemporary(), { count: 0, bytes: 0 });
});

test('foreign files are skipped and reported', async (t) => {
  const root = scratch(t);
  const store = await openDirectoryStore(root, { create: true });
  await store.put('vault.json', Buffer.from('{}'));
  await store.put('packs/ab/1', Buffer.from('x'));
  for (const folder of ['packs/New Folder', 'a/b/c/d', 'a/b/c/d/e', 'lost+found', 'tmp/x'])
    mkdirSync(join(root, folder), { recursive: true });
  for (const file of ['README.TXT', 'packs/ab/.nfs0001', 'packs/ab/.DS_Store', 'packs/New Folder/1', 'tmp/y'])
    await writeFile(join(root, file), 'foreign');
  symlinkSync('loop', join(root, 'packs/loop'));
  symlinkSync('nowhere', join(root, 'packs/dangling'));
  assert.deepEqual((await collect(store.list(''))).map(({ key }) => key).sort(), [
    'packs/ab/1',
    'vault.json',
  ]);
  assert.deepEqual((await collect(store.foreign())).sort(), [
    'README.TXT',
    'a/b/c/d/',
    'packs/New Folder/',
    'packs/ab/.DS_Store',
    'packs/dangling',
    'packs/loop',
  ]);
});

test('a directory in place of an object is reported as an error', async (t) => {
  const root = scratch(t);
  const store = await openDirectoryStore(root, { create: true });
  mkdirSync(join(root, 'packs/ab'), { recursive: true });
  await assert.rejects(store.put('packs', Buffer.from('x')), {
    code: 'VAULT_STORE_ERROR',
    message: /writing packs/,
  });
  await store.put('points', Buffer.from('x'));
  await assert.rejects(store.put('points/1', Buffer.from('x')), { code: 'VAULT_STORE_ERROR' });
  assert.deepEqual(readdirSync(join(root, 'tmp')), []);
});

test('leftovers in tmp/ are removed after a day of the filesystem’s clock', async (t) => {
  const root = scratch(t);
  const store = await openDirectoryStore(root, { create: true });
  await store.put('vault.json', Buffer.from('{}'));
  const now = Date.now() / 1000;
  for (const [name, age] of [
    ['old', 90_000],
    ['older', 900_000],
    ['fresh', 80_000],
    ['soon', -80_000],
    ['of a wrong clock', -90_000],
  ] as const) {
    await writeFile(join(root, 'tmp', name), 'left');
    await utimes(join(root, 'tmp', name), now - age, now - age);
  }
  assert.deepEqual(await store.cleanTemporary(), { count: 3, bytes: 12 });
  assert.deepEqual(readdirSync(join(root, 'tmp')).sort(), ['fresh', 'soon']);
  assert.deepEqual(await store.cleanTemporary({ olderThanMs: 3_600_000 }), { count: 1, bytes: 4 });
});

test('space is reserved once, leaves enough free space, and is freed once', async (t) => {
  const root = scratch(t);
  const store = await openDirectoryStore(root, { create: true });
  await store.put('vault.json', Buffer.from('{}'));
  const { room } = store;
  assert.equal(await room!.release(), false);
  await room!.keep(2 ** 52);
  assert.deepEqual(readdirSync(join(root, 'tmp')), []);
  await room!.keep(3 * 1024 * 1024);
  await room!.keep(5 * 1024 * 1024);
  assert.ok(statSync(join(root, 'tmp/reserve')).blocks * 512 >= 3 * 1024 * 1024);
  assert.deepEqual(await store.cleanTemporary({ olderThanMs: -1 }), { count: 0, bytes: 0 });
  assert.deepEqual([await room!.release(), await room!.release()], [true, false]);
  assert.deepEqual(readdirSync(join(root, 'tmp')), []);
});

test('errnos become error codes with a hint', () => {
  const codes: readonly [string, string][] = [
    ['ENOSPC', 'VAULT_FULL'],
    ['EDQUOT', 'VAULT_FULL'],
    ['EROFS', 'VAULT_READ_ONLY'],
    ['EACCES', 'VAULT_DENIED'],
    ['EPERM', 'VAULT_DENIED'],
    ['ESTALE', 'VAULT_UNREACHABLE'],
    ['EHOSTDOWN', 'VAULT_UNREACHABLE'],
    ['EIO', 'VAULT_STORE_ERROR'],
    ['ENAMETOOLONG', 'VAULT_STORE_ERROR'],
  ];
  for (const [errno, code] of codes) {
    const failure = directoryFailure('/v', 'writing a', Object.assign(new Error(errno), { code: errno }));
    assert.equal((failure as { code: string }).code, code, errno);
    assert.match((failure as Error).message, new RegExp(`^/v.*writing a gave ${errno}`));
  }
  const stranger = Object.assign(new Error('x'), { code: 'ERR_INVALID_ARG' });
  assert.equal(directoryFailure('/v', 'writing a', stranger), stranger);
});
