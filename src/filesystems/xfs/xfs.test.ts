/** Tests the XFS reader on synthetic filesystems: correct maps for every shape and feature, and their cost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sparseReader, type SyntheticXfs, syntheticXfs } from '../../../test/helpers/synthetic-xfs.ts';
import {
  extentsOf,
  mapOf,
  type SyntheticOutcome,
  wholeMap,
} from '../../../test/helpers/synthetic-xfs-map.ts';
import { TiB } from '../../base/bytes.ts';
import { complement, type Extent, merged } from '../../base/extents.ts';
import type { ReadAt } from '../../block/source.ts';
import type { MountState } from '../used-map.ts';
import { probeXfs, readXfsUsedMap } from './xfs.ts';

function expected(
  fs: SyntheticXfs,
  free: readonly (readonly [group: number, block: number, count: number])[],
): Extent[] {
  const bytes = free.map(([group, block, count]) => ({
    offset: (group * fs.agBlocks + block) * fs.blockSize,
    length: count * fs.blockSize,
  }));
  return [...complement(merged(bytes), fs.size)];
}

/** Gaps and lengths, from which a sorted list of extents behind the metadata is made. */
const layout = fc.array(fc.tuple(fc.nat(20), fc.integer({ min: 1, max: 20 })), { maxLength: 120 });

test('blocks that are not in the trees are used, for every version, block and sector size and depth', async () => {
  const shape = fc.record({
    version: fc.constantFrom(4 as const, 5 as const),
    blockLog: fc.integer({ min: 9, max: 16 }),
    sectorLog: fc.integer({ min: 9, max: 15 }),
    fanout: fc.integer({ min: 3, max: 40 }),
    groups: fc.array(layout, { minLength: 1, maxLength: 4 }),
    tail: fc.integer({ min: 0, max: 5000 }),
  });
  await fc.assert(
    fc.asyncProperty(shape, async ({ version, blockLog, sectorLog, fanout, groups, tail }) => {
      const blockSize = 2 ** Math.max(blockLog, version === 5 ? 10 : 9);
      const sectorSize = Math.min(2 ** sectorLog, blockSize);
      const lists: [number, number][][] = [];
      const fs = syntheticXfs({
        version,
        blockSize,
        sectorSize,
        fanout,
        agBlocks: 12000,
        blocks: 12000 * groups.length - (groups.length > 1 ? 2000 : 0),
        free: (group) => (lists[group] = extentsOf(groups[group]!, 4400)),
      });
      const free = lists.flatMap((list, group) => list.map(([b, n]) => [group, b, n] as const));
      for (const state of ['idle', 'frozen', 'live'] as const) {
        const outcome = await mapOf(grown(fs, tail), fs.size + tail, state);
        assert.equal(outcome.everything, false, outcome.reason);
        assert.deepEqual([...merged(outcome.used)], [...complement(freeBytes(fs, free), fs.size + tail)]);
      }
    }),
    { numRuns: 60 },
  );
});

function freeBytes(fs: SyntheticXfs, free: readonly (readonly [number, number, number])[]): Iterable<Extent> {
  return complement(expected(fs, free), fs.size);
}

/** Returns a reader of the same filesystem on a device that continues behind it. */
function grown(fs: SyntheticXfs, tail: number): ReadAt {
  return sparseReader(fs.pieces, fs.size + tail);
}

test('the identity is the same as from blkid', async () => {
  const fs = syntheticXfs();
  assert.deepEqual(await probeXfs(fs.readAt, fs.size), {
    type: 'xfs',
    uuid: '00112233-4455-6677-8899-aabbccddeeff',
    label: 'synthetic',
    blockSize: 4096,
    size: fs.size,
  });
});

test('known features are read, unknown features make everything used', async () => {
  const superblock = async (edit: (sb: Buffer) => void, state?: MountState): Promise<SyntheticOutcome> => {
    const fs = syntheticXfs();
    edit(fs.pieces.get(0)!);
    fs.seal(0, 'sb');
    return wholeMap(fs, state);
  };
  for (const bits of [0x01, 0x0b, 0x20, 0x40, 0x80])
    assert.equal(
      (await superblock((sb) => sb.writeUInt32BE(bits, 216))).everything,
      false,
      `incompat ${bits}`,
    );
  for (const bits of [0x10, 0x100, 0x200, 0x400, 0x80000000]) {
    const outcome = await superblock((sb) => sb.writeUInt32BE(bits, 216), 'frozen');
    assert.equal(outcome.everything, true, `incompat ${bits}`);
    assert.match(outcome.reason, bits === 0x10 ? /needing repair/ : /incompatible features/);
  }
  assert.equal((await superblock((sb) => sb.writeUInt32BE(0x0f, 212))).everything, false);
  assert.equal((await superblock((sb) => sb.writeUInt32BE(0x10, 212))).everything, true);
  assert.equal((await superblock((sb) => sb.writeUInt32BE(0xff, 208))).everything, false, 'compat');
  assert.equal((await superblock((sb) => sb.writeUInt32BE(0xff, 220))).everything, false, 'log_incompat');
  assert.equal((await superblock((sb) => sb.writeUInt8(1, 126))).everything, true, 'inprogress');
  const realtime = await superblock((sb) => sb.writeBigUInt64BE(100n, 16));
  assert.equal(realtime.everything, false);
  assert.match(realtime.reason, /realtime section of 409600 bytes/);
  const external = (sb: Buffer): void => void sb.fill(0, 48, 56);
  assert.match((await superblock(external)).reason, /log on another device/);
  assert.equal((await superblock(external)).everything, true);
  assert.equal((await superblock(external, 'frozen')).everything, false);
  assert.match((await superblock(external, 'frozen')).reason, /log is not part/);
});

test('a filesystem larger than its device is used as a whole; without a superblock there is no filesystem', async () => {
  const fs = syntheticXfs();
  const short = fs.size - 4096;
  assert.match(
    (await mapOf(sparseReader(fs.pieces, short), short)).reason,
    new RegExp(`${fs.size}.*${short}`),
  );
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), fc.boolean(), async (bytes, magic) => {
      const data = Buffer.from(bytes);
      if (magic) data.write('XFSB');
      const read: ReadAt = (offset, length) => Promise.resolve(data.subarray(offset, offset + length));
      assert.equal(await probeXfs(read, data.length), undefined);
      assert.equal((await mapOf(read, data.length)).everything, true);
    }),
  );
});

test('100 TiB: few reads, little time', async () => {
  const fs = syntheticXfs({
    agBlocks: 2 ** 28 - 1,
    blocks: (100 * TiB) / 4096,
    free: (_group, length) => (length < 2 ** 20 ? [] : extentsOf(Array(2000).fill([30, 30]), 1000)),
  });
  let reads = 0;
  let longest = 0;
  const counted: ReadAt = (offset, length) => {
    reads++;
    longest = Math.max(longest, length);
    return fs.readAt(offset, length);
  };
  const map = await readXfsUsedMap(counted, fs.size);
  let extents = 0;
  for await (const batch of map.extents) {
    extents += batch.length;
    assert.ok(batch.length < 10_000);
  }
  assert.ok(extents > 200_000);
  assert.ok(reads < 400, `${reads} reads`);
  assert.ok(longest <= 2 * 1024 * 1024, `${longest} bytes in one read`);
});

test('an abort ends the walk', async () => {
  const fs = syntheticXfs();
  const controller = new AbortController();
  const map = await readXfsUsedMap(fs.readAt, fs.size, { signal: controller.signal });
  controller.abort();
  await assert.rejects(async () => {
    for await (const batch of map.extents) assert.ok(batch);
  }, /abort/i);
});
