/**
 * Tests a vault on a disk without any free space, on real filesystems: a prune begins, deletes, and then
 * copies.
 */
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { checkVault } from '../../src/vault/check/check-vault.ts';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { newKeyFileText } from '../../src/vault/key-material.ts';
import { forgetPoint } from '../../src/vault/points/points.ts';
import { prune } from '../../src/vault/prune/prune.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';
import { Vault } from '../../src/vault/vault.ts';
import { exec } from '../helpers/exec.ts';
import { makeLoop } from '../helpers/loop.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { type TestImage, backUp, readBack } from '../helpers/vault-writer.ts';

const chunkSize = 64 * 1024;
const size = 64 * MiB;
const living = { ownerState: () => Promise.resolve('unknown' as const), maxWaste: 0.1 };

const randomImage = (first: number, count: number): Map<number, Buffer> =>
  new Map(Array.from({ length: count }, (_, at) => [first + at, randomBytes(chunkSize)]));

/** Writes foreign files until the disk is full; `leave` bytes stay free. */
function fill(directory: string, leave = 0): void {
  const data = randomBytes(MiB);
  for (let file = 0; file < 2000; file++) {
    let fd: number;
    try {
      fd = openSync(join(directory, `filler-${file}`), 'wx');
    } catch {
      return;
    }
    let written = 0;
    try {
      for (let length = MiB; length >= 512;) {
        const { bavail, bsize } = statfsSync(directory);
        if (leave > 0 && bavail * bsize <= leave) return;
        try {
          written += writeSync(fd, data, 0, length);
        } catch {
          length /= 2;
        }
      }
    } finally {
      closeSync(fd);
    }
    if (written === 0) return;
  }
}

async function vaultOn(t: TestContext, filesystem: string, megabytes: number) {
  const { mountPoint } = await makeLoop(t, { size: megabytes * MiB, filesystem, mount: true });
  const root = join(mountPoint!, 'v');
  const key = { kind: 'file', text: newKeyFileText() } as const;
  const store = await openDirectoryStore(root, { create: true });
  const vault = await Vault.init(store, { keys: [{ material: key }], packSize: MiB });
  const state = mkdtempSync(join(tmpdir(), 'vault-full-'));
  atEnd(t, () => rmSync(state, { recursive: true, force: true }));
  let indexes = 0;
  const newIndex = (): ChunkIndex => {
    const index = ChunkIndex.open(join(state, `${indexes++}.sqlite`), vault.id);
    atEnd(t, () => index.close());
    return index;
  };
  return { vault, root, disk: mountPoint!, newIndex, index: newIndex() };
}

for (const [filesystem, megabytes] of [
  ['ext4', 64],
  ['xfs', 320],
] as const)
  test(`on a full ${filesystem} a point is forgotten and pruned, which frees space`, async (t) => {
    const { vault, root, disk, newIndex, index } = await vaultOn(t, filesystem, megabytes);
    const first = await backUp(vault, index, { image: randomImage(0, 160), size });
    const image = randomImage(0, 100);
    const second = await backUp(vault, index, { image, size });
    fill(disk);
    await assert.rejects(backUp(vault, index, { image: randomImage(0, 200), size }), { code: 'VAULT_FULL' });
    await exec('sync', ['-f', disk]);
    fill(disk);
    await forgetPoint(vault, first.id);
    fill(disk);
    const pruned = await prune(vault, index, living);
    assert.ok(pruned.deleted.packs >= 10, JSON.stringify(pruned));
    assert.equal(pruned.noRoom, 0);
    assert.deepEqual(readdirSync(join(root, 'locks')), []);
    assert.equal((await checkVault(vault, newIndex(), { readData: true })).ok, true);
    assert.deepEqual(await readBack(vault, newIndex(), second.devices[0]!), image);
    await backUp(vault, index, { image: randomImage(0, 20), size });
  });

test('with little space a prune copies the needed parts of some packs, deletes those, and continues', async (t) => {
  const { vault, disk, newIndex, index } = await vaultOn(t, 'ext4', 96);
  const all = randomImage(0, 560);
  const half: TestImage = new Map([...all].filter(([chunk]) => chunk % 2 === 0));
  const first = await backUp(vault, index, { image: all, size });
  const second = await backUp(vault, index, { image: half, size });
  await forgetPoint(vault, first.id);
  // 17 MiB have to be copied.
  fill(disk, 4 * MiB);
  const plan = await prune(vault, index, { ...living, dryRun: true });
  const pruned = await prune(vault, index, living);
  assert.equal(pruned.noRoom, 0);
  assert.equal(pruned.deleted.packs, plan.deleted.packs);
  assert.ok(pruned.copied.bytes > 15 * MiB && pruned.kept.waste < MiB, JSON.stringify(pruned));
  assert.equal((await checkVault(vault, newIndex(), { readData: true })).ok, true);
  assert.deepEqual(await readBack(vault, newIndex(), second.devices[0]!), half);
});
