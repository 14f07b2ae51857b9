/** Images that are made to be expensive: reading them ends soon, with everything used, and within little memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crafted, craftedSize as size } from '../../../test/helpers/crafted-ext.ts';
import { Bitmap } from '../../base/bitmap.ts';
import type { ReadAt } from '../../block/source.ts';
import { type MarkedMap, markUsed } from '../mark-used.ts';

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
