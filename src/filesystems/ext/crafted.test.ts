/** Images made to be expensive: they end soon, with everything used, and within little memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc16 } from '../../base/crc16.ts';
import { Bitmap } from '../../base/bitmap.ts';
import { MiB } from '../../base/bytes.ts';
import type { ReadAt } from '../../block/source.ts';
import { type MarkedMap, markUsed } from '../mark-used.ts';

const size = 64 * MiB;
const blocks = size / 1024;
const uuid = Buffer.from('00112233445566778899aabbccddeeff', 'hex');

interface Crafted {
  readonly blocksPerGroup: number;
  readonly inodesPerGroup: number;
  /** Block bitmap, inode bitmap and inode table of a group. */
  readonly places: (group: number) => readonly [number, number, number];
  readonly flags: number;
  readonly freeClusters: number;
}

/** ext4 with uninit_bg and flex_bg and with right checksums. */
function crafted({ blocksPerGroup, inodesPerGroup, places, flags, freeClusters }: Crafted): Buffer {
  const disk = Buffer.alloc(size);
  const groups = Math.ceil((blocks - 1) / blocksPerGroup);
  const words: [number, number][] = [
    [0x00, groups * inodesPerGroup],
    [0x04, blocks],
    [0x14, 1],
    [0x20, blocksPerGroup],
    [0x24, blocksPerGroup],
    [0x28, inodesPerGroup],
    [0x38, 0x1ef53],
    [0x4c, 1],
    [0x58, 1024],
    // sparse_super2 without any copy: flex_bg, uninit_bg.
    [0x5c, 0x200],
    [0x60, 0x200],
    [0x64, 0x10],
  ];
  for (const [at, value] of words) disk.writeUInt32LE(value, 1024 + at);
  uuid.copy(disk, 1024 + 0x68);
  for (let group = 0; group < groups; group++) {
    const at = 2048 + group * 32;
    for (const [i, place] of places(group).entries()) disk.writeUInt32LE(place, at + i * 4);
    disk.writeUInt16LE(freeClusters, at + 0x0c);
    disk.writeUInt16LE(flags, at + 0x12);
    const number = Buffer.alloc(4);
    number.writeUInt32LE(group);
    const sum = crc16(disk.subarray(at, at + 0x1e), crc16(number, crc16(uuid, 0xffff)));
    disk.writeUInt16LE(sum, at + 0x1e);
  }
  return disk;
}

async function mark(disk: Buffer, signal?: AbortSignal): Promise<MarkedMap & { reads: number; ms: number }> {
  let reads = 0;
  const readAt: ReadAt = (offset, length) => {
    reads++;
    return Promise.resolve(Buffer.from(disk.subarray(offset, offset + length)));
  };
  const start = performance.now();
  const options = signal === undefined ? {} : { signal };
  const map = await markUsed(new Bitmap(size, 4096), readAt, size, 512, options);
  return { ...map, reads, ms: performance.now() - start };
}

test('inode tables that lie over every group', async () => {
  const disk = crafted({
    blocksPerGroup: 8,
    inodesPerGroup: 8192,
    places: () => [10_000, 10_001, 10_002],
    flags: 2,
    freeClusters: 8,
  });
  const map = await mark(disk);
  assert.equal(map.everything, true);
  assert.match(map.warnings.join(), /lies over other metadata/);
  assert.ok(map.ms < 5000, `${map.ms} ms`);
  assert.ok(map.reads < 100, `${map.reads} reads`);
});

test('a large table that is far from its group', async () => {
  const map = await mark(
    crafted({
      blocksPerGroup: 16,
      inodesPerGroup: 8192,
      places: (group) => [300 + group, 5000 + group, 10_000 + group],
      flags: 2,
      freeClusters: 0,
    }),
  );
  assert.equal(map.everything, true);
  assert.ok(map.ms < 5000, `${map.ms} ms`);
});

test('small groups without bitmaps cost no more than their number', async () => {
  const disk = crafted({
    blocksPerGroup: 16,
    inodesPerGroup: 8,
    places: (group) => [20_000 + group, 24_200 + group, 30_000 + group * 8],
    flags: 2,
    freeClusters: 16,
  });
  const map = await mark(disk);
  assert.equal(map.everything, false, map.warnings.join());
  assert.ok(map.ms < 5000, `${map.ms} ms`);
});

test('bitmaps with every other bit set', async () => {
  const groups = 8;
  const disk = crafted({
    blocksPerGroup: 8192,
    inodesPerGroup: 8,
    places: (group) => [20 + group * 64, 21 + group * 64, 22 + group * 64],
    flags: 0,
    freeClusters: 0,
  });
  for (let group = 0; group < groups; group++)
    disk.fill(0x55, (20 + group * 64) * 1024, (21 + group * 64) * 1024);
  const map = await mark(disk);
  assert.equal(map.everything, true);
  assert.ok(map.ms < 5000, `${map.ms} ms`);
});

test('an abort ends it', async () => {
  const disk = crafted({
    blocksPerGroup: 16,
    inodesPerGroup: 8,
    places: (group) => [20_000 + group, 30_000 + group, 40_000 + group * 4],
    flags: 2,
    freeClusters: 16,
  });
  await assert.rejects(mark(disk, AbortSignal.abort()), { name: 'AbortError' });
});
