/**
 * Proves the XFS used map against xfs_db and partclone.xfs for every variant that Debian's mkfs.xfs makes and
 * for frozen filesystems under a writer; that damage and dirty logs make everything used; and its size limit.
 * Needs root and the packages xfsprogs, partclone, util-linux.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { GiB, KiB, MiB, TiB } from '../../src/base/bytes.ts';
import { complement, type Extent, merged, totalLength } from '../../src/base/extents.ts';
import { openDeviceSource } from '../../src/block/device-source.ts';
import type { MountState } from '../../src/filesystems/used-map.ts';
import { probeXfs, readXfsUsedMap } from '../../src/filesystems/xfs/xfs.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { attachLoop, detachLoop, type LoopDisk, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { syntheticXfs } from '../helpers/synthetic-xfs.ts';
import { partcloneXfs, xfsDb } from '../helpers/xfs-oracle.ts';

interface Outcome {
  readonly everything: boolean;
  readonly warnings: string;
  readonly used: readonly Extent[];
  readonly size: number;
}

async function mapOf(path: string, state: MountState = 'idle'): Promise<Outcome> {
  const source = await openDeviceSource(path);
  const readAt = source.readAt.bind(source);
  try {
    const map = await readXfsUsedMap(readAt, source.size, { state });
    const used: Extent[] = [];
    for await (const batch of map.extents) used.push(...batch);
    assert.deepEqual([...merged(used)], used);
    return { everything: map.everything, warnings: map.warnings.join('; '), used, size: source.size };
  } finally {
    await source.close();
  }
}

/** Bytes of `a` that are not in `b`; both sorted. */
function bytesOutside(a: Iterable<Extent>, b: Iterable<Extent>): number {
  const cover = [...merged(b)];
  let total = 0;
  let i = 0;
  for (const { offset, length } of merged(a)) {
    total += length;
    const end = offset + length;
    while (i < cover.length && cover[i]!.offset + cover[i]!.length <= offset) i++;
    for (let j = i; j < cover.length && cover[j]!.offset < end; j++)
      total -= Math.min(end, cover[j]!.offset + cover[j]!.length) - Math.max(offset, cover[j]!.offset);
  }
  return total;
}

interface Comparison {
  /** The filesystem's bytes that count as used though they are free: the free lists, nothing else. */
  readonly overCount: number;
  readonly levels: number;
  readonly extents: number;
}

/** Holds a map to xfs_db's view of the image. */
async function compare(outcome: Outcome, image: string): Promise<Comparison> {
  assert.equal(outcome.everything, false, outcome.warnings);
  const oracle = await xfsDb(image);
  const free = [...complement(outcome.used, outcome.size)];
  assert.equal(bytesOutside(free, oracle.free), 0, 'free here, used by xfs_db');
  const overCount = bytesOutside(oracle.free, free);
  assert.equal(overCount, oracle.freeList, 'used here beyond the free lists');
  return { overCount, levels: oracle.levels, extents: free.length };
}

/** Mounts for as long as `work` takes. */
async function mounted(
  disk: Pick<LoopDisk, 'device' | 'directory'>,
  work: (mountPoint: string) => Promise<void>,
  options?: string,
): Promise<void> {
  const mountPoint = join(disk.directory, 'mnt');
  await mountDevice(disk.device, mountPoint, options);
  try {
    await work(mountPoint);
  } finally {
    await unmount(mountPoint);
  }
}

/** Files of many sizes, every third removed, and one file with `holes` holes of a block between blocks. */
async function fill(mountPoint: string, holes: number, blockSize: number): Promise<void> {
  for (let directory = 0; directory < 8; directory++) await mkdir(join(mountPoint, `d${directory}`));
  const name = (i: number): string => join(mountPoint, `d${i % 8}`, `f${i}`);
  for (let i = 0; i < 200; i++) await writeFile(name(i), Buffer.alloc((i * 977) % 50_000, i));
  for (let i = 0; i < 200; i += 3) await rm(name(i));
  const commands = [`falloc 0 ${holes * 2 * blockSize}`];
  for (let i = 0; i < holes; i++) commands.push(`fpunch ${i * 2 * blockSize} ${blockSize}`);
  await exec('xfs_io', ['-f', join(mountPoint, 'holes')], { input: `${commands.join('\n')}\n` });
}

interface Variant {
  readonly name: string;
  readonly args: readonly string[];
  readonly size?: number;
  readonly holes?: number;
  readonly block?: number;
  /** Levels that the content must have led to. */
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
  test(`XFS v5, ${variant.name}: free is what xfs_db holds for free, without the free lists`, async (t) => {
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
    const missing = bytesOutside(await partcloneXfs(disk.image), outcome.used);
    assert.equal(missing, 0, 'used by partclone, free here');
    assert.match((await exec('xfs_logprint', ['-t', disk.image])).stdout, /<CLEAN>/);
    t.diagnostic(
      `used ${totalLength(outcome.used)} bytes, over-count ${result.overCount} bytes (free lists), ` +
        `${result.extents} free extents, ${result.levels} levels`,
    );
  });

/** This kernel may lack v4, so that its files come from mkfs.xfs itself. */
for (const args of [
  ['-b', 'size=512'],
  ['-b', 'size=4096', '-s', 'size=4096'],
  ['-b', 'size=65536'],
  ['-l', 'version=1'],
  ['-l', 'lazy-count=0', '-n', 'ftype=0'],
])
  test(`XFS v4 ${args.join(' ')}: free is what xfs_db holds for free`, async (t) => {
    const disk = await makeLoop(t, { size: 400 * MiB, attach: false });
    const content = join(disk.directory, 'content');
    await writeFile(content, Buffer.alloc(70_000, 1));
    const files = Array.from({ length: 300 }, (_, i) => `f${i} ---644 0 0 ${content}`);
    const prototype = join(disk.directory, 'prototype');
    await writeFile(prototype, ['-', '0 0', 'd--755 0 0', ...files, '$', ''].join('\n'));
    await exec('mkfs.xfs', ['-q', '-f', '-m', 'crc=0', ...args, '-p', prototype, disk.image]);
    const outcome = await mapOf(disk.image);
    const result = await compare(outcome, disk.image);
    assert.equal(bytesOutside(await partcloneXfs(disk.image), outcome.used), 0);
    assert.ok(totalLength(outcome.used) > 300 * 70_000);
    t.diagnostic(`over-count ${result.overCount} bytes`);
  });

test('synthetic filesystems are to xfs_db what they are to the reader', async (t) => {
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
  assert.equal(bytesOutside(await partcloneXfs(disk.image), outcome.used), 0);
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

test('an external log and a realtime device are warned about', async (t) => {
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

test('the log: clean wherever it was unmounted while it went round, dirty after a shutdown', async (t) => {
  // Each synchronous write takes 256 KiB of the 64 MiB log.
  const disk = await makeLoop(t, {
    size: 320 * MiB,
    filesystem: 'xfs',
    mkfsArgs: ['-l', 'su=256k,size=64m'],
  });
  const heads: number[] = [];
  for (let round = 0; round < 7; round++) {
    await mounted(disk, async (mountPoint) => {
      for (let i = 0; i < 70 + round; i++) {
        const file = await open(join(mountPoint, `s${round}-${i}`), 'w');
        await file.sync();
        await file.close();
      }
    });
    await compare(await mapOf(disk.device), disk.image);
    const { stdout } = await exec('xfs_logprint', ['-t', disk.image]);
    assert.match(stdout, /<CLEAN>/);
    heads.push(Number(/head: (\d+)/.exec(stdout)?.[1]));
  }
  assert.ok(
    heads.some((head, i) => i > 0 && head < heads[i - 1]!),
    `the log went round: ${heads.join(' ')}`,
  );
  for (const flush of [true, false]) {
    await mounted(disk, async (mountPoint) => {
      await writeFile(join(mountPoint, `after-${flush}`), Buffer.alloc(100_000, 1));
      if (flush) await exec('sync', ['-f', mountPoint]);
      await exec('xfs_io', ['-x', '-c', flush ? 'shutdown' : 'shutdown -f', mountPoint]);
    });
    const { stdout } = await exec('xfs_logprint', ['-t', disk.image], { allow: [1] });
    assert.match(stdout, /<DIRTY>/);
    const outcome = await mapOf(disk.device);
    assert.equal(outcome.everything, true);
    assert.match(outcome.warnings, /log is dirty/);
  }
});

test('damage: a flipped bit in superblock, AGF or tree, a mark for repair, makes everything used', async (t) => {
  const disk = await makeLoop(t, {
    size: 320 * MiB,
    filesystem: 'xfs',
    mkfsArgs: ['-b', 'size=1024'],
  });
  await mounted(disk, (mountPoint) => fill(mountPoint, 1500, KiB));
  await compare(await mapOf(disk.image), disk.image);
  const places: readonly (readonly [string, readonly string[]])[] = [
    ['superblock', ['sb 0']],
    ['allocation group 1, AGF', ['agf 1']],
    ['allocation group 0, free-space tree', ['agf 0', 'addr bnoroot']],
    ['allocation group 0, free-space tree', ['agf 0', 'addr bnoroot', 'addr ptrs[2]']],
  ];
  for (const [name, walk] of places) {
    const at = [...walk, 'daddr'].flatMap((command) => ['-c', command]);
    const daddr = /daddr is (\d+)/.exec((await exec('xfs_db', ['-r', ...at, disk.image])).stdout)?.[1];
    const offset = Number(daddr) * 512 + 150;
    await flipBit(disk.image, offset);
    const crc = [...walk, 'p crc'].flatMap((command) => ['-c', command]);
    const said = (await exec('xfs_db', ['-r', ...crc, disk.image], { allow: [1] })).stdout;
    const error = await failure(disk.image);
    assert.ok(error.includes(name), error);
    assert.match(error, /checksum is 0x[0-9a-f]{8}, its contents give 0x[0-9a-f]{8}/);
    // xfs_db prints the four bytes as they lie on the disk.
    const stored = /crc = 0x([0-9a-f]+)/.exec(said)![1]!.padStart(8, '0');
    const swapped = Buffer.from(stored, 'hex').reverse().toString('hex');
    assert.match(error, new RegExp(`checksum is 0x${swapped},`));
    await flipBit(disk.image, offset);
  }
  await compare(await mapOf(disk.image), disk.image);
  // xfs_db seals what it writes, so that the checksum is right and the feature alone is to blame.
  const sealed = async (field: string, value: string): Promise<string> => {
    const old = await exec('xfs_db', ['-r', '-c', 'sb 0', '-c', `p ${field}`, disk.image]);
    const write = (text: string): Promise<unknown> =>
      exec('xfs_db', ['-x', '-c', 'sb 0', '-c', `write -d ${field} ${text}`, disk.image], { allow: [1] });
    await write(value);
    const error = await failure(disk.image);
    await write(/= (\S+)/.exec(old.stdout)![1]!);
    return error;
  };
  assert.match(await sealed('features_incompat', '0x1b'), /needing repair/);
  assert.match(await sealed('features_incompat', '0x80000001'), /incompatible features .*0x80000000/);
  assert.match(await sealed('features_ro_compat', '0x405'), /read-only compatible .*0x00000400/);
  await compare(await mapOf(disk.image), disk.image);
});

/** Why the map covers everything, known beforehand or from the walk. */
async function failure(image: string): Promise<string> {
  try {
    const outcome = await mapOf(image);
    assert.equal(outcome.everything, true, 'the damage went unnoticed');
    return outcome.warnings;
  } catch (error) {
    assert.ok(
      error instanceof Error && 'code' in error && error.code === 'FILESYSTEM_UNREADABLE',
      String(error),
    );
    return error.message;
  }
}

async function flipBit(path: string, offset: number): Promise<void> {
  const file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  byte[0] = byte[0]! ^ 0x10;
  await file.write(byte, 0, 1, offset);
  await file.close();
}

test('frozen under a writer: the map on the disk is true, and an image of it is as good as clean', async (t) => {
  for (const args of [[], ['-m', 'rmapbt=1', '-b', 'size=1024']]) {
    const disk = await makeLoop(t, { size: 320 * MiB, filesystem: 'xfs', mkfsArgs: args, mount: true });
    const mountPoint = disk.mountPoint!;
    await fill(mountPoint, 2000, KiB);
    const stop = startWriter(t, mountPoint);
    const copy = `${disk.image}.copy`;
    for (let round = 0; round < 4; round++) {
      await waitForFiles(mountPoint, round);
      const live = await mapOf(disk.device, 'live');
      assert.equal(live.everything, false);
      let before: Outcome;
      let after: Outcome;
      await exec('fsfreeze', ['--freeze', mountPoint]);
      try {
        before = await mapOf(disk.device, 'frozen');
        await rm(copy, { force: true });
        await exec('dd', [
          `if=${disk.device}`,
          `of=${copy}`,
          'bs=1M',
          'iflag=direct',
          'conv=sparse',
          'status=none',
        ]);
        after = await mapOf(disk.device, 'frozen');
      } finally {
        await exec('fsfreeze', ['--unfreeze', mountPoint]);
      }
      assert.deepEqual(before, after);
      const result = await compare(before, copy);
      assert.deepEqual(await mapOf(copy, 'idle'), before);
      t.diagnostic(`frozen: ${result.extents} free extents, over-count ${result.overCount} bytes`);
    }
    await stop();
    // Replaying the frozen image's log must not find more in use than the map had.
    const device = await attachLoop(copy);
    atEnd(t, () => detachLoop(device));
    await mounted({ device, directory: `${disk.directory}/copy` }, () => Promise.resolve(), 'nouuid');
    await exec('xfs_repair', ['-n', copy]);
  }
});

/** Makes, grows and removes files until it is stopped; a process of its own, since a freeze blocks it. */
function startWriter(t: TestContext, mountPoint: string): () => Promise<void> {
  const script =
    'i=0; while [ ! -e stop ]; do i=$((i+1)); head -c $((i % 97 * 1000)) /dev/zero > w$i; ' +
    'echo $i > count; [ $((i % 3)) = 0 ] && rm -f w$((i-2)); [ $i -gt 900 ] && rm -f w$((i-900)); done';
  const child = spawn('sh', ['-c', script], { cwd: mountPoint, stdio: 'ignore' });
  const ended = once(child, 'exit');
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exec('fsfreeze', ['--unfreeze', mountPoint], { allow: [1] });
    await ended;
  };
  atEnd(t, stop);
  return stop;
}

/** Until the writer has made some hundred files more. */
async function waitForFiles(mountPoint: string, round: number): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const { stdout } = await exec('cat', [join(mountPoint, 'count')], { allow: [1] });
    if (Number(stdout) > (round + 1) * 250) return;
    assert.ok(Date.now() < deadline, `the writer is at ${stdout}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

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
