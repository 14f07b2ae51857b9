/**
 * Proves a kept used map on real ext4 and XFS, with random changes between the readings. It reads again only
 * the groups that were written, and equals a whole reading bit for bit. Marks are exactly the sectors that
 * changed. Readings before the last are of a device in the middle of a change. KEPT_MAP_RUNS sets the number
 * of histories of each layout.
 */
import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Bitmap } from '../../src/base/bitmap.ts';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { KeptMap } from '../../src/filesystems/kept-map.ts';
import { DeviceVersions, keptEqualsWhole } from '../helpers/device-versions.ts';
import { exec } from '../helpers/exec.ts';
import { type LoopDisk, makeLoop } from '../helpers/loop.ts';
import { seeded } from '../helpers/random.ts';

const runs = Number(process.env['KEPT_MAP_RUNS'] ?? 3);
const versionsEach = 4;

/** mkfs.xfs makes filesystems below 300 MB only for xfstests. */
Object.assign(process.env, { TEST_DIR: '/', TEST_DEV: '/', QA_CHECK_FS: 'true' });

interface Layout {
  readonly name: string;
  readonly filesystem: 'ext4' | 'xfs';
  readonly args: readonly string[];
}

/** Groups have 1 or 4 MiB, so that small images have many. */
const ext = (name: string, ...args: readonly string[]): Layout => ({ name, filesystem: 'ext4', args });
const xfs = (name: string, ...args: readonly string[]): Layout => ({ name, filesystem: 'xfs', args });

const small = ['-b', '1024', '-g', '1024', '-J', 'size=1'];
const layouts: readonly Layout[] = [
  ext('blocks of 1 KiB, flex_bg', ...small),
  ext('blocks of 2 KiB, without flex_bg', '-b', '2048', '-g', '1024', '-J', 'size=2', '-O', '^flex_bg'),
  ext('blocks of 4 KiB', '-b', '4096', '-g', '1024', '-J', 'size=4'),
  ext('meta_bg, without resize_inode', ...small, '-O', 'meta_bg,^resize_inode'),
  ext('uninit_bg, without metadata_csum or 64bit', ...small, '-O', '^metadata_csum,^64bit,uninit_bg'),
  ext('no checksums', ...small, '-O', '^metadata_csum,^uninit_bg'),
  ext('bigalloc', '-b', '1024', '-O', 'bigalloc', '-C', '4096', '-g', '1024', '-J', 'size=1'),
  ext('sparse_super2, metadata packed', ...small, '-O', 'sparse_super2', '-E', 'packed_meta_blocks=1'),
  ext('without a journal', '-b', '1024', '-g', '1024', '-O', '^has_journal'),
  xfs('defaults', '-d', 'agcount=6', '-l', 'size=8m'),
  xfs('blocks of 1 KiB, rmapbt', '-b', 'size=1024', '-m', 'rmapbt=1', '-d', 'agcount=4', '-l', 'size=8m'),
  xfs('nothing new', '-m', 'finobt=0,inobtcount=0,reflink=0,bigtime=0', '-i', 'sparse=0', '-l', 'size=8m'),
];

for (const layout of layouts)
  test(`${layout.filesystem}, ${layout.name}: a kept map equals a whole reading`, async (t) => {
    const size = (layout.filesystem === 'xfs' ? 100 : 32) * MiB + 20 * KiB;
    const disk = await makeLoop(t, {
      ...{ size, filesystem: layout.filesystem, mkfsArgs: layout.args, mount: true, directory: '/dev/shm' },
    });
    const versions = await history(disk, size);
    const { runs: done, groups, groupsRead, whole } = await keptEqualsWhole(versions, runs);
    t.diagnostic(`${done} histories; ${groupsRead} of ${groups} groups read, ${whole} times all of them`);
    assert.ok(groups > 0, 'the map has groups');
  });

test('ext4: an inconsistent group is read again, also if it was not written', async (t) => {
  const mkfsArgs = [...small, '-O', '^metadata_csum,^uninit_bg'];
  const disk = await makeLoop(t, { size: 16 * MiB, attach: false, filesystem: 'ext4', mkfsArgs });
  const { stdout } = await exec('dumpe2fs', [disk.image]);
  const bitmapBlock = Number(/^Group 5:[^]*?Block bitmap at (\d+)/m.exec(stdout)?.[1]);
  const versions = new DeviceVersions(16 * MiB);
  await versions.addFile(disk.image);
  await exec('dd', [
    'if=/dev/zero',
    `of=${disk.image}`,
    'bs=1k',
    'count=1',
    `seek=${bitmapBlock}`,
    'conv=notrunc',
  ]);
  await versions.addFile(disk.image);
  const [whole, damaged] = [0, 1].map((version) => versions.mixed(version, version, () => false));
  const nothing = new Bitmap(16 * MiB, 4 * KiB);
  for (const earlier of [whole!, damaged!]) {
    const kept = new KeptMap(new Bitmap(16 * MiB, 4 * KiB));
    const live = await kept.read(earlier, 512, { state: 'live' }, undefined);
    assert.deepEqual([live.everything, live.groupsRead], [false, 16]);
    const frozen = await kept.read(earlier, 512, { state: 'frozen' }, nothing);
    assert.equal(frozen.everything, earlier === damaged, frozen.warnings.join());
    assert.equal(frozen.groupsRead, 0);
  }
});

/** Returns the frozen device after each of several rounds of changes. */
async function history(disk: LoopDisk, size: number): Promise<DeviceVersions> {
  const random = seeded(size + disk.device.length);
  const versions = new DeviceVersions(size);
  const mountPoint = disk.mountPoint!;
  for (let version = 0; version < versionsEach; version++) {
    await change(mountPoint, random, version === 0 ? 40 : 1 + Math.floor(random() ** 2 * 12));
    await exec('fsfreeze', ['--freeze', mountPoint]);
    try {
      await versions.addFile(disk.image);
    } finally {
      await exec('fsfreeze', ['--unfreeze', mountPoint]);
    }
  }
  return versions;
}

/** Makes random changes to the files below the directory. A full disk stops only a single change. */
async function change(directory: string, random: () => number, count: number): Promise<void> {
  const below = (most: number): number => Math.floor(random() * most);
  for (let i = 0; i < count; i++) {
    const name = join(directory, `f${below(60)}`);
    const size = 1 + below(random() < 0.2 ? 3 * MiB : 60 * KiB);
    const kind = below(8);
    if (kind < 2) await writeFile(name, Buffer.alloc(size, i + 1)).catch(ifFull);
    else if (kind === 2) await rm(name, { force: true });
    else if (kind === 3) await exec('fallocate', ['-l', String(size), name], { allow: [1] });
    else if (kind === 4) await exec('truncate', ['-s', String(size >> 2), name], { allow: [1] });
    else if (kind < 7) {
      // Uses as many blocks as before in other places. Without checksums the descriptor stays the same.
      await writeFile(`${name}.new`, Buffer.alloc(3000, i + 1)).catch(ifFull);
      await exec('mv', [`${name}.new`, join(directory, 'moving')], { allow: [1] });
    } else {
      await mkdir(`${name}.d`, { recursive: true }).catch(ifFull);
      for (let file = 0; file < 20; file++) await writeFile(join(`${name}.d`, `${file}`), 'x').catch(ifFull);
    }
  }
}

function ifFull(error: unknown): void {
  if (!(error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'ENOENT')))
    throw error;
}
