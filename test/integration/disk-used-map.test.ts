/**
 * Tests whole disks. Partition tables equal the view of blkid and sfdisk. The used map of a disk is the sum
 * of its partitions' maps and everything between. Debian packages: fdisk gdisk util-linux e2fsprogs xfsprogs
 * dosfstools.
 */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Bitmap } from '../../src/base/bitmap.ts';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { type Extent, merged, totalLength } from '../../src/base/extents.ts';
import { readPartitionTable } from '../../src/filesystems/disk/partition-table.ts';
import { markUsed } from '../../src/filesystems/mark-used.ts';
import { readUsedMap } from '../../src/filesystems/read-used-map.ts';
import type { MountState } from '../../src/filesystems/used-map.ts';
import { readVerifiedUsedMap } from '../../src/filesystems/read-verified-used-map.ts';
import { exec } from '../helpers/exec.ts';
import { emptyFile, scratchDirectory } from '../helpers/ext-images.ts';
import { type LoopDisk, makeFilesystem, makeLoop, umount } from '../helpers/loop.ts';
import { collectExtents, dumpe2fsUsed, openImage } from '../helpers/used-extents.ts';

/** Partition numbers. */
interface Numbers {
  readonly vfat: number;
  readonly ext: number;
  readonly xfs: number;
  readonly swap: number;
}

const gpt = [
  'label: gpt',
  'first-lba: 34',
  'start=34, size=1M, type=21686148-6449-6E6F-744E-656564454649, name="BIOS boot"',
  'size=40M, type=uefi, name="EFI"',
  'size=160M, type=linux, name="root fs"',
  'size=400M, type=linux',
  'size=64M, type=swap, name="swäp"',
  'size=20M, type=linux',
  '',
].join('\n');

const mbr = [
  'label: dos',
  'label-id: 0x00c0ffee',
  '1: size=40M, type=c, bootable',
  '2: size=160M, type=83',
  '3: size=600M, type=5',
  '4: size=20M, type=83',
  '5: size=8M, type=83',
  '6: size=400M, type=83',
  '7: size=64M, type=82',
  '',
].join('\n');

for (const [name, partitions, sectorSize] of [
  ['GPT', gpt, 512],
  ['GPT with sectors of 4 KiB', gpt.replaceAll('34', '6'), 4096],
  ['MBR', mbr, 512],
  ['MBR with sectors of 4 KiB', mbr, 4096],
] as const)
  test(`${name}: the table as blkid and sfdisk read it`, async (t) => {
    const disk = await makeLoop(t, { size: 900 * MiB, partitions, sectorSize });
    await compareTable(disk.device, sectorSize);
    if (!name.startsWith('GPT')) return;
    // sfdisk itself uses the backup table if the primary one is damaged.
    await write(disk.device, sectorSize + 16, Buffer.alloc(4, 0x5a));
    const table = await compareTable(disk.device, sectorSize);
    assert.match(table.warnings.join(), /primary header: checksum 0x[0-9a-f]{8}, but 0x5a5a5a5a is stored/);
  });

async function compareTable(device: string, sectorSize: number) {
  await using image = await openImage(device);
  const table = (await readPartitionTable(image.readAt, image.size, sectorSize))!;
  assert.equal(table.problem, undefined);
  const json = JSON.parse((await exec('sfdisk', ['--json', device])).stdout) as {
    partitiontable: {
      id: string;
      partitions: { node: string; start: number; size: number; type: string; uuid?: string; name?: string }[];
    };
  };
  const { partitiontable: theirs } = json;
  assert.equal(table.uuid, theirs.id.toLowerCase().replace('0x', ''));
  assert.deepEqual(
    table.partitions.map(({ number, start, size, label, type }) => ({
      number,
      start,
      size,
      label,
      type: type.replace('0x', ''),
    })),
    theirs.partitions.map(({ node, start, size, name, type }) => ({
      number: Number(/\d+$/.exec(node)![0]),
      start: start * sectorSize,
      size: size * sectorSize,
      label: name,
      type: type.toLowerCase(),
    })),
  );
  for (const { number, uuid, label, type, container } of table.partitions) {
    if (container) continue;
    const args = ['-p', '-o', 'value', `${device}p${number}`];
    const value = async (tag: string): Promise<string> =>
      (await exec('blkid', ['-s', tag, ...args], { allow: [2] })).stdout.trim();
    assert.equal(await value('PART_ENTRY_UUID'), uuid);
    assert.equal(await value('PART_ENTRY_TYPE'), type);
    assert.equal(await value('PART_ENTRY_NAME'), label ?? '');
  }
  return table;
}

for (const [name, partitions, numbers] of [
  ['GPT', gpt, { vfat: 2, ext: 3, xfs: 4, swap: 5 }],
  ['MBR', mbr, { vfat: 1, ext: 2, xfs: 6, swap: 7 }],
] satisfies [string, string, Numbers][])
  test(`${name}: each partition by its own filesystem`, async (t) => {
    const disk = await makeLoop(t, { size: 900 * MiB, partitions });
    await makeFilesystem(disk.partition(numbers.vfat), 'vfat');
    await makeFilesystem(disk.partition(numbers.ext), 'ext4');
    await makeFilesystem(disk.partition(numbers.xfs), 'xfs');
    await makeFilesystem(disk.partition(numbers.swap), 'swap');
    const { expected, size } = await expectedUsed(disk, numbers);

    await using image = await openImage(disk.device);
    const map = await readUsedMap(image.readAt, image.size, 512);
    assert.deepEqual(map.warnings, []);
    assert.equal(map.everything, false);
    assert.deepEqual(await collectExtents(map.extents, size), expected);
    const bitmap = new Bitmap(size, 64 * KiB);
    const mark = await markUsed(bitmap, image.readAt, size, 512);
    assert.equal(mark.usedBytes, totalLength(expected));
    assert.ok(totalLength(expected) < size / 2);

    // Only the damaged partition counts as used completely.
    const start = (await readPartitionTable(image.readAt, size, 512))!.partitions.find(
      (partition) => partition.number === numbers.ext,
    )!.start;
    await write(disk.device, start + 1024 + 0x70, Buffer.alloc(1, 0x11));
    const damaged = await readVerifiedUsedMap(image.readAt, size, 512);
    assert.equal(damaged.everything, false);
    assert.match(
      damaged.warnings.join(),
      new RegExp(`^partition ${numbers.ext}: ext4: superblock: checksum`),
    );
    assert.ok(totalLength(await collectExtents(damaged.extents, size)) > totalLength(expected));
  });

/**
 * Returns everything except the free space by each partition's own map, read from the partition's own device.
 */
async function expectedUsed(disk: LoopDisk, numbers: Numbers): Promise<{ expected: Extent[]; size: number }> {
  const table = await exec('sfdisk', ['--json', disk.device]);
  const { partitions } = (
    JSON.parse(table.stdout) as {
      partitiontable: { partitions: { node: string; start: number; size: number; type: string }[] };
    }
  ).partitiontable;
  const size = Number((await exec('blockdev', ['--getsize64', disk.device])).stdout);
  const expected: Extent[] = [];
  let at = 0;
  for (const { node, start, size: sectors, type } of partitions.sort((a, b) => a.start - b.start)) {
    if (type === '5') continue;
    const [offset, length] = [start * 512, sectors * 512];
    expected.push({ offset: at, length: offset - at });
    at = offset + length;
    const within = async (): Promise<Extent[]> => {
      if (node === disk.partition(numbers.ext)) return dumpe2fsUsed(node, length);
      if (node === disk.partition(numbers.swap)) return [{ offset: 0, length: 4096 }];
      if (node !== disk.partition(numbers.xfs)) return [{ offset: 0, length }];
      // Another test compares it with its own oracle.
      await using image = await openImage(node);
      return await collectExtents((await readUsedMap(image.readAt, length, 512)).extents, length);
    };
    expected.push(...(await within()).map((extent) => ({ ...extent, offset: extent.offset + offset })));
  }
  expected.push({ offset: at, length: size - at });
  return { expected: [...merged(expected)], size };
}

test('a mounted partition: idle by default, frozen if the caller passes that state', async (t) => {
  const disk = await makeLoop(t, { size: 300 * MiB, partitions: 'label: gpt\nsize=200M\n' });
  await makeFilesystem(disk.partition(1), 'ext4');
  const mountPoint = join(disk.directory, 'part');
  await exec('mkdir', [mountPoint]);
  await exec('mount', [disk.partition(1), mountPoint]);
  try {
    // Reads the image and not the device, whose page cache differs from its partition's and may be stale.
    await using image = await openImage(disk.image);
    const read = async (state?: MountState) => {
      const partitionStates = new Map(state === undefined ? [] : [[MiB, state]]);
      return await readVerifiedUsedMap(image.readAt, image.size, 512, { partitionStates });
    };
    assert.match((await read()).warnings.join(), /^partition 1: ext4: its journal needs recovery/);
    await exec('fsfreeze', ['--freeze', mountPoint]);
    assert.deepEqual((await read('frozen')).warnings, []);
  } finally {
    await exec('fsfreeze', ['--unfreeze', mountPoint], { allow: [1] });
    await umount(mountPoint);
  }
});

test('two signatures: everything is used if it is unclear which one is stale', async (t) => {
  const size = 300 * MiB;
  const image = await emptyFile(join(await scratchDirectory(t), 'image'), size);
  const everything = async (reason: RegExp): Promise<void> => {
    await using file = await openImage(image);
    const map = await readUsedMap(file.readAt, size, 512);
    assert.equal(map.everything, true);
    assert.match(map.warnings.join(), reason);
  };

  // A table over a whole-disk ext4 that was not wiped, as fdisk leaves it.
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', image]);
  await exec('sfdisk', ['-q', '--wipe', 'never', image], { input: 'label: dos\nsize=100M, type=83\n' });
  await everything(/a partition table \(mbr\) and a signature of ext4/);

  // mke2fs removes the table, so only the filesystem counts.
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', image]);
  await using file = await openImage(image);
  assert.equal((await readUsedMap(file.readAt, size, 512)).everything, false);

  // A boot loader in the boot block has a boot signature, but no partition.
  await write(image, 510, Buffer.from([0x55, 0xaa]));
  assert.equal((await readUsedMap(file.readAt, size, 512)).everything, false);

  // The head of a squashfs in the boot block.
  const squashfs = Buffer.alloc(64);
  squashfs.write('hsqs');
  squashfs.writeUInt16LE(4, 28);
  await write(image, 0, squashfs);
  await everything(/signatures of ext4 and squashfs/);
});

test('a FAT or NTFS boot sector is not a partition table', async (t) => {
  const size = 64 * MiB;
  const image = await emptyFile(join(await scratchDirectory(t), 'image'), size);
  for (const [program, ...args] of [
    ['mkfs.vfat', '-F', '16'],
    ['mkfs.vfat', '-F', '12', '-s', '64'],
    ['mkntfs', '-q', '-F', '-f'],
  ] as const) {
    await exec(program, [...args, image]);
    await using file = await openImage(image);
    assert.equal(await readPartitionTable(file.readAt, size, 512), undefined);
    const map = await readUsedMap(file.readAt, size, 512);
    assert.equal(map.everything, true);
    assert.match(map.warnings.join(), /^(vfat|ntfs): every block is used/);
  }
});

async function write(path: string, offset: number, bytes: Buffer): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, offset);
  await file.sync();
  await file.close();
}
