/**
 * Tests the directory store on real filesystems: full, read-only, unmounted below the store, killed, and
 * after a power cut.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, statSync, symlinkSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { AgentError } from '../../src/base/errors.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';
import type { ObjectStore } from '../../src/vault/store/object-store.ts';
import { storeContract } from '../contracts/object-store.contract.ts';
import { collect } from '../helpers/collect.ts';
import { exec } from '../helpers/exec.ts';
import { type LoopDisk, attachLoop, detachLoop, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { numberOf, numbered } from '../helpers/store-putter.ts';

const putter = join(import.meta.dirname, '../helpers/store-putter.ts');
const node = join(import.meta.dirname, '../../scripts/node');

// All disks are made before the first test is registered. The runner ends a file whose tests are over even
// while it still waits.
const disks: (LoopDisk & { readonly filesystem: string })[] = [];
for (const [filesystem, size] of [
  ['ext4', 128],
  ['xfs', 320],
  ['btrfs', 256],
] as const)
  disks.push({ ...(await makeLoop({ after }, { size: size * MiB, filesystem, mount: true })), filesystem });

let places = 0;
for (const { filesystem, mountPoint } of disks)
  storeContract(
    `directory on ${filesystem}`,
    async () => {
      const root = join(mountPoint!, `v${places++}`);
      const store = await openDirectoryStore(root, { create: true });
      return { store, close: () => rm(root, { recursive: true }) };
    },
    { manyKeys: 40, largest: MiB },
  );

/** Makes a vault's directory on a separate filesystem. */
async function vaultOn(t: TestContext, size: number, filesystem = 'ext4') {
  const disk = await makeLoop(t, { size, filesystem, mount: true });
  const root = join(disk.mountPoint!, 'v');
  const store = await openDirectoryStore(root, { create: true });
  await store.put('vault.json', Buffer.from('{}'));
  return { disk, root, store };
}

test('a full disk', async (t) => {
  const { root, store } = await vaultOn(t, 24 * MiB);
  const data = randomBytes(3 * MiB);
  const keys: string[] = [];
  const full = { code: 'VAULT_FULL', message: /has no free space: writing packs\/ab\/\d+ gave ENOSPC/ };
  for (let i = 0; i < 20; i++) {
    const put = store.put(`packs/ab/${i}`, [data, data.subarray(0, 5)]);
    if (i > 12) await assert.rejects(put, full);
    else
      await put.then(
        () => keys.push(`packs/ab/${i}`),
        (thrown: unknown) => assert.equal((thrown as AgentError).code, 'VAULT_FULL'),
      );
  }
  assert.ok(keys.length >= 3 && keys.length < 10, `${keys.length} fitted`);
  assert.deepEqual(readdirSync(join(root, 'tmp')), [], 'half an object does not take room for a day');
  const listed = (await collect(store.list('packs/'))).map(({ key }) => key);
  assert.deepEqual(listed, keys.sort());
  for (const key of keys)
    assert.ok((await store.get(key)).equals(Buffer.concat([data, data.subarray(0, 5)])));
  await store.delete(keys[0]!);
  await store.put('packs/ab/again', data);
});

test('a filesystem that became read-only', async (t) => {
  const { disk, store } = await vaultOn(t, 24 * MiB);
  await store.put('points/1', Buffer.from('x'));
  await exec('mount', ['-o', 'remount,ro', disk.mountPoint!]);
  const readOnly = { code: 'VAULT_READ_ONLY' };
  await assert.rejects(store.put('points/2', Buffer.from('y')), readOnly);
  await assert.rejects(store.put('new/folder', Buffer.from('y')), readOnly);
  await assert.rejects(store.delete('points/1'), readOnly);
  await assert.rejects(store.cleanTemporary(), readOnly);
  const reader = await openDirectoryStore(join(disk.mountPoint!, 'v'));
  assert.equal((await reader.get('points/1')).toString(), 'x');
  assert.equal((await collect(reader.list(''))).length, 2);
});

test('a folder that is write-protected', async (t) => {
  const { root, store } = await vaultOn(t, 24 * MiB);
  await store.put('points/1', Buffer.from('x'));
  await exec('chattr', ['+i', join(root, 'points')]);
  const denied = { code: 'VAULT_DENIED', message: /EPERM|EACCES/ };
  await assert.rejects(store.put('points/2', Buffer.from('y')), denied);
  await assert.rejects(store.delete('points/1'), denied);
  await exec('chattr', ['-i', join(root, 'points')]);
  await store.put('points/2', Buffer.from('y'));
});

test('a filesystem that is unmounted below the store, and mounted again', async (t) => {
  const disk = await makeLoop(t, { size: 24 * MiB, filesystem: 'ext4', mount: true });
  const root = disk.mountPoint!;
  const store = await openDirectoryStore(root, { create: true });
  await store.put('vault.json', Buffer.from('{}'));
  await store.put('points/1', Buffer.from('x'));
  await unmount(root);
  const gone = { code: 'VAULT_NOT_FOUND', message: /vault\.json/ };
  try {
    await assert.rejects(store.put('points/2', Buffer.from('y')), gone);
    await assert.rejects(store.get('points/1'), gone);
    await assert.rejects(collect(store.list('')), gone);
    await assert.rejects(openDirectoryStore(root), gone);
    assert.deepEqual(readdirSync(root), [], 'nothing was written below the mount point');
  } finally {
    await mountDevice(disk.device, root);
  }
  assert.equal((await store.get('points/1')).toString(), 'x');
});

test('a process that is killed during puts leaves the old or the new object, and temporary files', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'dattod-store-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const root = join(directory, 'v');
  let left = 0;
  for (let round = 0; round < 8; round++) {
    const { child, lines } = startPutter(root, ['forever']);
    let last = -1;
    for await (const line of lines) {
      last = Number(line);
      // Each round kills at another point of the next puts.
      if (last === 3) setTimeout(() => child.kill('SIGKILL'), round * 3);
    }
    assert.ok(last >= 3);
    const store = await openDirectoryStore(root, { create: true });
    const objects = await collect(store.list(''));
    for (const { key, size } of objects) {
      const data = await store.get(key);
      assert.equal(data.length, size);
      numberOf(data);
    }
    for (let n = Math.max(0, last - 10); n <= last; n++)
      assert.equal(numberOf(await store.get(`k/${n % 20}`)) % 20, n % 20);
    assert.ok([last, last + 1].includes(numberOf(await store.get('same'))));
    assert.deepEqual(await collect(store.foreign()), []);
    left += readdirSync(join(root, 'tmp')).length;
    const cleaned = await store.cleanTemporary({ olderThanMs: -3_600_000 });
    assert.deepEqual(readdirSync(join(root, 'tmp')), []);
    assert.ok(cleaned.count <= 2);
    await rm(root, { recursive: true });
  }
  assert.ok(left > 0, 'at least one was killed in the middle of a put');
});

for (const filesystem of ['ext4', 'xfs'] as const)
  test(`objects that were put exist after a power cut, on ${filesystem}`, async (t) => {
    const { disk, store } = await vaultOn(t, (filesystem === 'xfs' ? 320 : 64) * MiB, filesystem);
    for (let n = 0; n < 4; n++) {
      // Puts into new folders, and over existing objects.
      await Promise.all([store.put(`p${n}/q/r/s`, numbered(n)), store.put('same', numbered(n))]);
      if (n > 0) await store.delete(`p${n - 1}/q/r/s`);
      await afterPowerCut(disk, filesystem, async (found) => {
        assert.equal(numberOf(await found.get(`p${n}/q/r/s`)), n);
        assert.equal(numberOf(await found.get('same')), n);
        assert.equal(await found.head(`p${n - 1}/q/r/s`), undefined);
        assert.equal((await collect(found.list(''))).length, 3);
      });
    }
  });

test('every step of a put is synced before the next, as strace sees it', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'dattod-store-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const root = join(directory, 'v');
  await mkdir(join(root, 'tmp'), { recursive: true });
  const trace = join(directory, 'trace');
  const calls = 'trace=openat,writev,pwritev,write,fsync,fdatasync,rename,renameat,renameat2,mkdir';
  await exec('strace', ['-f', '-y', '-e', calls, '-o', trace, node, putter, root, 'once', 'packs/ab/one']);
  const lines = (await readFile(trace, 'utf8')).split('\n');
  const at = (what: RegExp): number => {
    const index = lines.findIndex((line) => what.test(line) && !/= -1/.test(line));
    assert.ok(index >= 0, `no line of the trace is ${what}`);
    return index;
  };
  const path = root.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const steps = [
    at(new RegExp(`openat\\(.*"${path}/tmp/[^"]+", .*O_EXCL`)),
    at(new RegExp(`writev?\\(\\d+<${path}/tmp/`)),
    at(new RegExp(`f(data)?sync\\(\\d+<${path}/tmp/`)),
    at(new RegExp(`mkdir\\("${path}/packs"`)),
    at(new RegExp(`fsync\\(\\d+<${path}>`)),
    at(new RegExp(`mkdir\\("${path}/packs/ab"`)),
    at(new RegExp(`fsync\\(\\d+<${path}/packs>`)),
    at(new RegExp(`rename.*"${path}/packs/ab/one"`)),
    at(new RegExp(`fsync\\(\\d+<${path}/packs/ab>`)),
    at(/write\(1<.*"done/),
  ];
  assert.deepEqual(
    steps,
    [...steps].sort((a, b) => a - b),
  );
});

/**
 * Passes the store as a machine finds it after a power cut now: the disk's bytes, without data that is only
 * in memory.
 */
async function afterPowerCut(
  disk: LoopDisk,
  filesystem: string,
  look: (store: ObjectStore) => Promise<void>,
): Promise<void> {
  const image = join(disk.directory, 'cut');
  const mountPoint = join(disk.directory, 'after');
  await exec('cp', ['--sparse=always', '--reflink=auto', disk.image, image]);
  const device = await attachLoop(image);
  try {
    await mountDevice(device, mountPoint, filesystem === 'xfs' ? 'nouuid' : 'noatime');
    try {
      await look(await openDirectoryStore(join(mountPoint, 'v')));
    } finally {
      await unmount(mountPoint);
    }
  } finally {
    await detachLoop(device);
    await rm(image);
  }
}

function startPutter(
  root: string,
  args: readonly string[],
): { child: ChildProcess; lines: AsyncIterable<string> } {
  const child = spawn(node, [putter, root, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  return { child, lines: createInterface(child.stdout) };
}

test("files that root writes into another user's directory belong to that user, and links are not followed", async (t) => {
  const { root } = await vaultOn(t, 24 * MiB);
  await exec('chown', ['-R', '65534:65533', root]);
  const store = await openDirectoryStore(root);
  await store.put('packs/ab/one', Buffer.from('x'), { isNew: true });
  await store.put('points/one', Buffer.from('x'));
  for (const name of ['packs', 'packs/ab', 'packs/ab/one', 'points', 'points/one']) {
    const { uid, gid } = statSync(join(root, name));
    assert.deepEqual([name, uid, gid], [name, 65534, 65533]);
  }
  const elsewhere = await mkdtemp(join(tmpdir(), 'elsewhere-'));
  t.after(() => rm(elsewhere, { recursive: true }));
  symlinkSync(elsewhere, join(root, 'checks'));
  const refused = { code: 'VAULT_DENIED', message: /checks is not a folder/ };
  await assert.rejects(store.put('checks/one', Buffer.from('x')), refused);
  await rm(join(root, 'tmp'), { recursive: true });
  symlinkSync(elsewhere, join(root, 'tmp'));
  await assert.rejects(store.put('points/two', Buffer.from('x')), { code: 'VAULT_DENIED' });
  assert.deepEqual(readdirSync(elsewhere), []);
  // A prune removes nothing elsewhere. A put makes no folders there, and changes no owners.
  await writeFile(join(elsewhere, 'one'), 'x');
  await utimes(join(elsewhere, 'one'), 1, 1);
  for (const work of [
    () => store.cleanTemporary(),
    () => store.room!.keep(MiB),
    () => store.room!.release(),
    () => store.delete('checks/one'),
  ])
    await assert.rejects(work, { code: 'VAULT_DENIED' });
  await rm(join(root, 'tmp'));
  await rm(join(root, 'packs'), { recursive: true });
  symlinkSync(elsewhere, join(root, 'packs'));
  await assert.rejects(store.put('packs/cd/two', Buffer.from('x')), { code: 'VAULT_DENIED' });
  assert.deepEqual(readdirSync(elsewhere), ['one']);
});
