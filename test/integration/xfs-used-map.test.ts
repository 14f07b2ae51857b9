/**
 * Proves the XFS used map against xfs_db and partclone.xfs for every variant that Debian's mkfs.xfs makes, up
 * to 100 TiB. Needs root and the packages xfsprogs, partclone, util-linux.
 */
import assert from 'node:assert/strict';
import { mkdir, open, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { GiB, KiB, MiB, TiB } from '../../src/base/bytes.ts';
import { totalLength } from '../../src/base/extents.ts';
import { openDeviceSource } from '../../src/block/device-source.ts';
import { probeXfs } from '../../src/filesystems/xfs/xfs.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { attachLoop, detachLoop, makeLoop } from '../helpers/loop.ts';
import { syntheticXfs } from '../helpers/synthetic-xfs.ts';
import { partcloneUsed, without } from '../helpers/used-extents.ts';
import { compare, fill, mapOf, mounted } from '../helpers/xfs-images.ts';

interface Variant {
  readonly name: string;
  readonly args: readonly string[];
  readonly size?: number;
  readonly holes?: number;
  readonly block?: number;
  /** Levels of the trees that the content must reach. */
  readonly levels?: number;
  readonly sectorSize?: number;
}

const variants: readonly Variant[] = [
  { name: 'defaults of mkfs.xfs', args: [] },
  { name: '1 KiB blocks, three levels', args: ['-b', 'size=1024'], holes: 12_000, block: KiB, levels: 3 },
  { name: '2 KiB blocks, two levels', args: ['-b', 'size=2048'], holes: 2000, block: 2 * KiB, levels: 2 },
  { name: '4 KiB blocks, two levels, rmapbt', args: ['-m', 'rmapbt=1'], holes: 3000, levels: 2 },
  { name: '16 KiB blocks', args: ['-b', 'size=16384'], block: 16 * KiB },
  { name: '64 KiB blocks', args: ['-b', 'size=65536'], block: 64 * KiB },
  { name: 'sectors of 4096', args: ['-s', 'size=4096'] },
  { name: 'a device with sectors of 4096', args: [], sectorSize: 4096 },
  { name: 'sectors of 1024', args: ['-s', 'size=1024'] },
  {
    name: 'sectors of 32 KiB in blocks of 64',
    args: ['-s', 'size=32768', '-b', 'size=65536'],
    block: 64 * KiB,
  },
  { name: 'no reflink', args: ['-m', 'reflink=0'] },
  { name: 'reflink, rmapbt, inobtcount, bigtime', args: ['-m', 'reflink=1,rmapbt=1,inobtcount=1,bigtime=1'] },
  { name: 'nothing new', args: ['-m', 'finobt=0,inobtcount=0,reflink=0,bigtime=0', '-i', 'sparse=0'] },
  { name: 'sparse inodes and large extent counters', args: ['-i', 'sparse=1,nrext64=1'] },
  { name: 'stripe units', args: ['-d', 'su=64k,sw=4'], size: GiB },
  { name: 'a log stripe unit', args: ['-l', 'su=256k'] },
  { name: '24 groups', args: ['-d', 'agcount=24'], size: 2 * GiB },
  { name: 'the log in another group', args: ['-l', 'agnum=2'], size: GiB },
];

for (const variant of variants)
  test(`XFS v5, ${variant.name}: free blocks equal those of xfs_db, without the free lists`, async (t) => {
    const { size = 320 * MiB, holes = 300, block = 4 * KiB, sectorSize } = variant;
    const disk = await makeLoop(t, {
      size: size + 123 * KiB * 4,
      filesystem: 'xfs',
      mkfsArgs: variant.args,
      ...(sectorSize === undefined ? {} : { sectorSize }),
    });
    await mounted(disk, (mountPoint) => fill(mountPoint, holes, block));
    const outcome = await mapOf(disk.device);
    const result = await compare(outcome, disk.image);
    assert.equal(outcome.warnings, '');
    if (variant.levels !== undefined) assert.equal(result.levels, variant.levels);
    assert.ok(result.extents >= holes, `${result.extents} free extents`);
    const partclone = await partcloneUsed('xfs', disk.image);
    assert.deepEqual(without(partclone, outcome.used), [], 'used by partclone, free here');
    assert.match((await exec('xfs_logprint', ['-t', disk.image])).stdout, /<CLEAN>/);
    t.diagnostic(
      `used ${totalLength(outcome.used)} bytes, over-count ${result.overCount} bytes (free lists), ` +
        `${result.extents} free extents, ${result.levels} levels`,
    );
  });

/** This kernel may not support v4, so mkfs.xfs itself adds the files. */
for (const args of [
  ['-b', 'size=512'],
  ['-b', 'size=4096', '-s', 'size=4096'],
  ['-b', 'size=65536'],
  ['-l', 'version=1'],
  ['-l', 'lazy-count=0', '-n', 'ftype=0'],
])
  test(`XFS v4 ${args.join(' ')}: free blocks equal those of xfs_db`, async (t) => {
    const disk = await makeLoop(t, { size: 400 * MiB, attach: false });
    const content = join(disk.directory, 'content');
    await writeFile(content, Buffer.alloc(70_000, 1));
    const files = Array.from({ length: 300 }, (_, i) => `f${i} ---644 0 0 ${content}`);
    const prototype = join(disk.directory, 'prototype');
    await writeFile(prototype, ['-', '0 0', 'd--755 0 0', ...files, '$', ''].join('\n'));
    await exec('mkfs.xfs', ['-q', '-f', '-m', 'crc=0', ...args, '-p', prototype, disk.image]);
    const outcome = await mapOf(disk.image);
    const result = await compare(outcome, disk.image);
    assert.deepEqual(without(await partcloneUsed('xfs', disk.image), outcome.used), []);
    assert.ok(totalLength(outcome.used) > 300 * 70_000);
    t.diagnostic(`over-count ${result.overCount} bytes`);
  });

test('xfs_db and the reader agree on synthetic filesystems', async (t) => {
  const free = (_group: number, length: number): [number, number][] =>
    Array.from({ length: 400 }, (_, i) => [5000 + i * 7, 3] as [number, number]).filter(
      ([b]) => b + 3 < length,
    );
  for (const options of [
    { version: 4 as const, blockSize: 512, fanout: 20, free },
    { version: 5 as const, blockSize: 1024, fanout: 20, free },
    { version: 5 as const, blockSize: 4096, sectorSize: 4096, fanout: 40, free },
    { version: 5 as const },
  ]) {
    const fs = syntheticXfs(options);
    const disk = await makeLoop(t, { size: fs.size, attach: false });
    const file = await open(disk.image, 'r+');
    for (const [offset, piece] of fs.pieces) await file.write(piece, 0, piece.length, offset);
    await file.close();
    const { levels } = await compare(await mapOf(disk.image), disk.image);
    if (options.free !== undefined) assert.ok(levels >= 2);
    await disk.remove();
  }
});

test('a grown filesystem with a short last group, another UUID and a label', async (t) => {
  const disk = await makeLoop(t, { size: 320 * MiB, filesystem: 'xfs', mkfsArgs: ['-L', 'a label'] });
  await exec('xfs_admin', ['-U', 'deadbeef-1234-4321-8888-0123456789ab', disk.device]);
  await truncate(disk.image, 397 * MiB);
  await exec('losetup', ['--set-capacity', disk.device]);
  await mounted(disk, async (mountPoint) => {
    await exec('xfs_growfs', ['-d', mountPoint]);
    await fill(mountPoint, 100, 4 * KiB);
  });
  const outcome = await mapOf(disk.device);
  await compare(outcome, disk.image);
  assert.deepEqual(without(await partcloneUsed('xfs', disk.image), outcome.used), []);
  const source = await openDeviceSource(disk.device);
  const identity = await probeXfs(source.readAt.bind(source), source.size);
  await source.close();
  const blkid = async (tag: string): Promise<string> =>
    (await exec('blkid', ['-p', '-o', 'value', '-s', tag, disk.device])).stdout.trim();
  assert.equal(identity?.uuid, await blkid('UUID'));
  assert.equal(identity.label, await blkid('LABEL'));
  assert.equal(identity.uuid, 'deadbeef-1234-4321-8888-0123456789ab');
  assert.equal(String(identity.blockSize), await blkid('FSBLOCKSIZE').then((text) => text || '4096'));
});

test('an external log and a realtime device cause a warning', async (t) => {
  const log = await makeLoop(t, { size: 128 * MiB });
  const disk = await makeLoop(t, {
    size: 320 * MiB,
    filesystem: 'xfs',
    mkfsArgs: ['-l', `logdev=${log.device}`],
  });
  await mounted(disk, (mountPoint) => fill(mountPoint, 100, 4 * KiB), `logdev=${log.device}`);
  const idle = await mapOf(disk.device);
  assert.equal(idle.everything, true);
  assert.match(idle.warnings, /log on another device, so it cannot be told/);
  const frozen = await mapOf(disk.device, 'frozen');
  assert.match(frozen.warnings, /^XFS has its log on another device: the log is not part of this device$/);
  await compare(frozen, disk.image);

  const realtime = await makeLoop(t, { size: 64 * MiB });
  const other = await makeLoop(t, {
    size: 320 * MiB,
    filesystem: 'xfs',
    mkfsArgs: ['-m', 'rmapbt=0,reflink=0', '-r', `rtdev=${realtime.device}`],
  });
  const outcome = await mapOf(other.device);
  assert.match(outcome.warnings, /realtime section of 67108864 bytes on another device/);
  await compare(outcome, other.image);
});

test('100 TiB, made by mkfs.xfs in a sparse file on XFS', async (t) => {
  const outer = await makeLoop(t, { size: 4 * GiB, filesystem: 'xfs', mount: true });
  const image = join(outer.mountPoint!, 'image');
  await (await open(image, 'wx')).close();
  await truncate(image, 100 * TiB);
  await exec('mkfs.xfs', ['-q', image]);
  const device = await attachLoop(image);
  atEnd(t, () => detachLoop(device));
  await mounted({ device, directory: join(outer.directory, 'inner') }, async (mountPoint) => {
    for (let i = 0; i < 250; i++) {
      await mkdir(join(mountPoint, `d${i}`));
      await writeFile(join(mountPoint, `d${i}`, 'f'), Buffer.alloc(50_000, 1));
    }
  });
  const start = performance.now();
  const outcome = await mapOf(device);
  const elapsed = performance.now() - start;
  const { extents } = await compare(outcome, image);
  assert.ok(elapsed < 5000, `${elapsed} ms`);
  t.diagnostic(`${extents} free extents, ${totalLength(outcome.used)} bytes used, ${Math.round(elapsed)} ms`);
});
