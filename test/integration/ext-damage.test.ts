/**
 * Proves that damage to the metadata of ext2/3/4, unknown features and bad sectors make everything used, and
 * never a used block free.
 */
import assert from 'node:assert/strict';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { Bitmap } from '../../src/base/bitmap.ts';
import { AgentError } from '../../src/base/errors.ts';
import type { Extent } from '../../src/base/extents.ts';
import type { ReadAt } from '../../src/block/source.ts';
import { markUsed, type MarkedMap } from '../../src/filesystems/mark-used.ts';
import { readVerifiedUsedMap } from '../../src/filesystems/read-verified-used-map.ts';
import { exec } from '../helpers/exec.ts';
import { emptyFile, makeExtImage, scratchDirectory } from '../helpers/ext-images.ts';
import { collectExtents, markImage, openImage } from '../helpers/used-extents.ts';

interface Damage {
  readonly name: string;
  readonly args: readonly string[];
  /** The output of dumpe2fs before the number of the damaged block; undefined for byte `at` of the device. */
  readonly block?: RegExp;
  readonly at: number;
  readonly reason: RegExp;
}

const damages: readonly Damage[] = [
  {
    name: 'a bit of a block bitmap, metadata_csum',
    args: ['-t', 'ext4'],
    block: /^ {2}Block bitmap at (\d+)/m,
    at: 100,
    reason: /group 0: block bitmap checksum 0x[0-9a-f]{8}, but 0x[0-9a-f]{8} is stored/,
  },
  {
    name: 'a bit of a block bitmap, no checksums',
    args: ['-t', 'ext2'],
    block: /^ {2}Block bitmap at (\d+)/m,
    at: 2000,
    reason: /group 0: the block bitmap has \d+ free clusters, but the descriptor says \d+/,
  },
  {
    name: 'a group descriptor, metadata_csum',
    args: ['-t', 'ext4'],
    block: /Group descriptors at (\d+)/,
    at: 64 + 4,
    reason: /group 1: descriptor checksum 0x[0-9a-f]{8}, but 0x[0-9a-f]{8} is stored/,
  },
  {
    name: 'a group descriptor, uninit_bg',
    args: ['-t', 'ext4', '-O', '^metadata_csum,uninit_bg'],
    block: /Group descriptors at (\d+)/,
    at: 64 + 4,
    reason: /group 1: descriptor checksum/,
  },
  {
    name: 'the place of a bitmap, no checksums',
    args: ['-t', 'ext3'],
    block: /Group descriptors at (\d+)/,
    at: 32 + 3,
    reason: /group 1: block bitmap at block \d+, but the filesystem has \d+ blocks/,
  },
  {
    name: 'the superblock',
    args: ['-t', 'ext4'],
    at: 1024 + 0x70,
    reason: /superblock: checksum 0x[0-9a-f]{8}, but 0x[0-9a-f]{8} is stored/,
  },
  {
    name: 'an unknown incompatible feature',
    args: ['-t', 'ext2'],
    at: 1024 + 0x63,
    reason: /unknown incompatible feature 0x80000000/,
  },
  {
    name: 'an unknown read-only feature',
    args: ['-t', 'ext2'],
    at: 1024 + 0x67,
    reason: /unknown read-only compatible feature 0x80000000/,
  },
  {
    name: 'an unknown compatible feature',
    args: ['-t', 'ext2'],
    at: 1024 + 0x5f,
    reason: /unknown compatible feature 0x80000000/,
  },
  {
    name: 'the number of blocks',
    args: ['-t', 'ext2'],
    at: 1024 + 0x06,
    reason: /superblock: \d+ inodes, but|the filesystem has \d+ bytes/,
  },
];

for (const damage of damages)
  test(`damage makes everything used: ${damage.name}`, async (t) => {
    const image = await emptyFile(join(await scratchDirectory(t), 'image'), 300 * MiB);
    await exec('mke2fs', ['-q', '-F', '-b', '4096', ...damage.args, image]);
    assert.equal((await markImage(image)).everything, false);
    const block = damage.block && Number(damage.block.exec((await exec('dumpe2fs', [image])).stdout)?.[1]);
    await flip(image, (block ?? 0) * 4096 + damage.at, 0x80);

    const mark = await markImage(image);
    assert.match(mark.warnings.join(), damage.reason);
    assert.equal(mark.everything, true);
    assert.equal(mark.usedBytes, 300 * MiB);
    await using file = await openImage(image);
    const verified = await readVerifiedUsedMap(file.readAt, file.size, 512);
    assert.equal(verified.everything, true);
    assert.deepEqual(await collectExtents(verified.extents, file.size), [{ offset: 0, length: file.size }]);
  });

for (const args of [
  ['-O', 'metadata_csum'],
  ['-O', '^metadata_csum,uninit_bg'],
])
  test(`a bit flipped anywhere never makes a used block free: ${args.join(' ')}`, async (t) => {
    const directory = await scratchDirectory(t);
    const path = await makeExtImage(t, directory, { name: '', args: ['-t', 'ext4', '-b', '1024', ...args] });
    await using image = await openImage(path);
    const read: Extent[] = [];
    const trueMap = await markMap(image.size, async (offset, length) => {
      read.push({ offset, length });
      return image.readAt(offset, length);
    });
    assert.equal(trueMap.mark.everything, false);

    let unnoticed = 0;
    const rounds = 200;
    // Without the reads that look for other signatures. The superblock is chosen more often than its size
    // suggests.
    const metadata = read.filter(({ length }) => length < 512 * KiB);
    for (let round = 0; round < rounds; round++) {
      const { offset, length } =
        round % 3 === 0 ? { offset: 1024, length: 1024 } : metadata[(round * 7919) % metadata.length]!;
      const at = offset + ((round * 104_729) % length);
      const damaged = await markMap(image.size, async (from, count) => {
        const bytes = await image.readAt(from, count);
        if (at >= from && at < from + count) bytes[at - from]! ^= 1 << (round % 8);
        return bytes;
      });
      if (damaged.mark.everything) {
        assert.ok(damaged.mark.warnings.length > 0);
        continue;
      }
      unnoticed++;
      const missing = trueMap.bitmap.clone();
      missing.andNot(damaged.bitmap);
      assert.ok(missing.isEmpty(), `bit ${round % 8} of byte ${at}`);
    }
    t.diagnostic(`${unnoticed} of ${rounds} flips changed nothing that matters`);
  });

for (const { name, args, size } of [
  { name: 'ext2, blocks of 1 KiB', args: ['-t', 'ext2', '-b', '1024'], size: 20 * MiB },
  { name: 'ext2 of one group', args: ['-t', 'ext2', '-b', '4096'], size: 16 * MiB },
  {
    name: 'ext3, copies in each group',
    args: ['-t', 'ext3', '-O', '^sparse_super,^resize_inode'],
    size: 24 * MiB,
  },
  {
    name: 'ext4 with meta_bg and 64bit',
    args: ['-t', 'ext4', '-b', '1024', '-O', '^metadata_csum,^uninit_bg,^resize_inode,meta_bg,64bit'],
    size: 40 * MiB,
  },
  {
    name: 'ext4 with bigalloc',
    args: ['-t', 'ext4', '-b', '1024', '-C', '4096', '-O', '^metadata_csum,^uninit_bg,bigalloc'],
    size: 80 * MiB,
  },
])
  test(`one wrong byte in a superblock or descriptor without checksums: ${name}`, async (t) => {
    const path = await emptyFile(join(await scratchDirectory(t), 'image'), size);
    await exec('mke2fs', ['-q', '-F', '-d', 'docs', ...args, path]);
    const disk = await readFile(path);
    const over =
      (at: number, value: number): ReadAt =>
      (offset, length) => {
        const bytes = Buffer.from(disk.subarray(offset, offset + length));
        if (at >= offset && at < offset + length) bytes[at - offset] = value;
        return Promise.resolve(bytes);
      };
    const truth = await markMap(size, over(0, disk[0]!));
    assert.deepEqual([truth.mark.everything, truth.mark.warnings], [false, []]);
    const blockSize = disk.readUInt32LE(1024 + 0x18) === 0 ? 1024 : 4096;
    const descriptors = Math.max(2048, blockSize);
    let taken = 0;
    // The superblock's relevant fields lie in its first bytes and around s_backup_bgs. Then come three
    // descriptors.
    const places = [
      ...Array.from({ length: 0x180 }, (_, i) => 1024 + i),
      ...Array.from({ length: 0x40 }, (_, i) => 1024 + 0x240 + i),
      ...Array.from({ length: 96 }, (_, i) => descriptors + i),
    ];
    for (const [i, at] of places.entries()) {
      // Of all values that a byte may have, this tries one changed bit, a high value and a low value.
      for (const value of new Set([
        disk[at]! ^ 1,
        disk[at]! ^ (1 << (1 + (i % 7))),
        i % 2 === 0 ? 0 : 0xff,
      ])) {
        const { mark, bitmap } = await markMap(size, over(at, value));
        if (mark.everything) continue;
        taken++;
        const missing = truth.bitmap.clone();
        missing.andNot(bitmap);
        assert.ok(missing.isEmpty(), `byte ${at} is ${value} instead of ${disk[at]}`);
      }
    }
    t.diagnostic(`${taken} damages changed nothing that matters`);
  });

test('bad sectors in the metadata make everything used, a lost device does not', async (t) => {
  const path = await emptyFile(join(await scratchDirectory(t), 'image'), 300 * MiB);
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '4096', path]);
  const bitmap = Number(/^ {2}Block bitmap at (\d+)/m.exec((await exec('dumpe2fs', [path])).stdout)?.[1]);
  await using image = await openImage(path);
  for (const bad of [0, 1024, 4096, bitmap * 4096]) {
    const failing =
      (code: 'DEVICE_READ_ERROR' | 'DEVICE_GONE'): ReadAt =>
      (offset, length) =>
        bad >= offset && bad < offset + length
          ? Promise.reject(new AgentError(code, `no reading of byte ${bad}`))
          : image.readAt(offset, length);
    const { mark, bitmap: all } = await markMap(image.size, failing('DEVICE_READ_ERROR'));
    assert.equal(mark.everything, true);
    assert.equal(all.bytes(), image.size);
    assert.match(mark.warnings.join(), new RegExp(`no reading of byte ${bad}`));
    await assert.rejects(markMap(image.size, failing('DEVICE_GONE')), { code: 'DEVICE_GONE' });
  }
  const signal = AbortSignal.abort();
  await assert.rejects(markUsed(new Bitmap(image.size, 1024), image.readAt, image.size, 512, { signal }), {
    name: 'AbortError',
  });
});

async function markMap(size: number, readAt: ReadAt): Promise<{ mark: MarkedMap; bitmap: Bitmap }> {
  const bitmap = new Bitmap(size, 1024);
  return { mark: await markUsed(bitmap, readAt, size, 512), bitmap };
}

test('a device shorter than its filesystem is used as a whole', async (t) => {
  const image = await emptyFile(join(await scratchDirectory(t), 'image'), 300 * MiB);
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', image]);
  await exec('truncate', ['--size', '299M', image]);
  const mark = await markImage(image);
  assert.equal(mark.everything, true);
  assert.match(mark.warnings.join(), /the filesystem has 314572800 bytes, but the device 313524224/);
});

async function flip(path: string, offset: number, bits: number): Promise<void> {
  const file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  await file.write(Buffer.from([byte[0]! ^ bits]), 0, 1, offset);
  await file.close();
}
