/** The XFS reader over synthetic filesystems: right maps, and no way for damage to end in one, a crash or a loop. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sparseReader, type SyntheticXfs, syntheticXfs } from '../../../test/helpers/synthetic-xfs.ts';
import { TiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { complement, type Extent, merged } from '../../base/extents.ts';
import type { ReadAt } from '../../block/source.ts';
import type { MountState } from '../used-map.ts';
import { probeXfs, readXfsUsedMap } from './xfs.ts';

interface Outcome {
  readonly everything: boolean;
  readonly reason: string;
  readonly used: readonly Extent[];
}

/** Reads the whole map; a walk that fails counts as everything, as its callers take it. */
async function mapOf(readAt: ReadAt, size: number, state?: MountState): Promise<Outcome> {
  const map = await readXfsUsedMap(readAt, size, state === undefined ? {} : { state });
  const used: Extent[] = [];
  try {
    for await (const batch of map.extents) used.push(...batch);
  } catch (error) {
    assert.ok(error instanceof AgentError && error.code === 'FILESYSTEM_UNREADABLE', String(error));
    return { everything: true, reason: error.message, used: [] };
  }
  let end = -1;
  for (const { offset, length } of used) {
    assert.ok(offset > end && length > 0, `${offset}+${length} after ${end}`);
    end = offset + length;
  }
  assert.ok(end <= size);
  return { everything: map.everything, reason: map.warnings.join('; '), used };
}

const whole = (fs: SyntheticXfs, state?: MountState): Promise<Outcome> => mapOf(fs.readAt, fs.size, state);

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

/** Gaps and lengths that become a sorted list of extents behind the metadata. */
const layout = fc.array(fc.tuple(fc.nat(20), fc.integer({ min: 1, max: 20 })), { maxLength: 120 });

function extentsOf(steps: readonly (readonly [number, number])[], start: number): [number, number][] {
  let at = start;
  return steps.map(([gap, count]) => {
    const first = at + gap;
    at = first + count;
    return [first, count];
  });
}

test('what is not in the trees is used, for every version, block and sector size and depth', async () => {
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
        free: (group) => (lists[group] = extentsOf(groups[group]!, 4200)),
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

/** The same with a device that goes on behind the filesystem. */
function grown(fs: SyntheticXfs, tail: number): ReadAt {
  return sparseReader(fs.pieces, fs.size + tail);
}

test('identity as blkid gives it', async () => {
  const fs = syntheticXfs();
  assert.deepEqual(await probeXfs(fs.readAt, fs.size), {
    type: 'xfs',
    uuid: '00112233-4455-6677-8899-aabbccddeeff',
    label: 'synthetic',
    blockSize: 4096,
    size: fs.size,
  });
});

test('any bit flipped in a v5 superblock, AGF or tree block makes everything used', async () => {
  const fs = syntheticXfs({ fanout: 3, free: () => extentsOf(Array(30).fill([2, 3]), 1000) });
  const places = [0, 512, ...fs.treeBlocks.get(0)!, ...fs.treeBlocks.get(2)!];
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...places), fc.nat(), async (place, where) => {
      const bit = where % (fs.pieces.get(place)!.length * 8);
      flip(fs, place, bit);
      try {
        assert.equal((await whole(fs)).everything, true, `bit ${bit} at ${place}`);
      } finally {
        flip(fs, place, bit);
      }
    }),
    { numRuns: 300 },
  );
  assert.equal((await whole(fs)).everything, false);
});

function flip(fs: SyntheticXfs, place: number, bit: number): void {
  const piece = fs.pieces.get(place)!;
  piece[bit >>> 3] = piece[bit >>> 3]! ^ (1 << (bit & 7));
}

test('a failed checksum is named with its place and both numbers', async () => {
  const fs = syntheticXfs({ fanout: 3, free: () => extentsOf(Array(30).fill([2, 3]), 1000) });
  const place = fs.treeBlocks.get(1)!.at(-1)!;
  flip(fs, place, 800);
  const stored = fs.pieces.get(place)!.readUInt32LE(52).toString(16).padStart(8, '0');
  const { reason } = await whole(fs);
  assert.match(
    reason,
    /^XFS allocation group 1, free-space tree block \d+ \(level 0\): checksum is 0x[0-9a-f]{8}, its contents give 0x[0-9a-f]{8}$/,
  );
  assert.ok(reason.includes(`0x${stored}`), reason);
});

test('garbage in v4 trees, which have no checksums, neither loops nor crashes', async () => {
  const edits = fc.array(
    fc.record({
      block: fc.nat(),
      at: fc.nat(),
      value: fc.oneof(fc.nat(80), fc.nat(16384), fc.integer({ min: 0, max: 0xffffffff })),
    }),
    { minLength: 1, maxLength: 6 },
  );
  await fc.assert(
    fc.asyncProperty(edits, fc.constantFrom('idle' as const, 'live' as const), async (list, state) => {
      const fs = syntheticXfs({
        version: 4,
        blockSize: 512,
        fanout: 4,
        free: () => extentsOf(Array(60).fill([2, 3]), 4200),
      });
      const blocks = [...fs.treeBlocks.values()].flat();
      for (const { block, at, value } of list)
        fs.pieces.get(blocks[block % blocks.length]!)!.writeUInt32BE(value, (at % 128) * 4);
      let reads = 0;
      const counted: ReadAt = (offset, length) => {
        reads++;
        return fs.readAt(offset, length);
      };
      await mapOf(counted, fs.size, state);
      assert.ok(reads < 500, `${reads} reads`);
    }),
    { numRuns: 300 },
  );
});

test('a truncated tree block or device read is unreadable, not a crash', async () => {
  const fs = syntheticXfs();
  const place = fs.treeBlocks.get(1)![0]!;
  const failing: ReadAt = (offset, length) =>
    offset <= place && offset + length > place
      ? Promise.reject(new AgentError('DEVICE_READ_ERROR', `bad sector at ${place}`))
      : fs.readAt(offset, length);
  const outcome = await mapOf(failing, fs.size);
  assert.equal(outcome.everything, true);
  assert.match(outcome.reason, /allocation group 1.*bad sector/);
  fs.pieces.get(place)!.fill(0, 48);
  assert.equal((await whole(fs)).everything, true);
});

test('cycles among children and siblings end with an error, also where checksums are right', async () => {
  const make = (): SyntheticXfs =>
    syntheticXfs({ fanout: 3, free: () => extentsOf(Array(30).fill([2, 3]), 1000) });
  const childrenAt = 56 + Math.floor((4096 - 56) / 12) * 8;
  for (const [what, edit] of [
    ['a node that is its own child', (b: Buffer, own: number) => b.writeUInt32BE(own, childrenAt)],
    ['two pointers to one child', (b: Buffer) => b.copy(b, childrenAt + 4, childrenAt, childrenAt + 4)],
    ['its own left sibling', (b: Buffer, own: number) => b.writeUInt32BE(own, 8)],
    ['its own right sibling', (b: Buffer, own: number) => b.writeUInt32BE(own, 12)],
    ['a child outside of the group', (b: Buffer) => b.writeUInt32BE(999_999, childrenAt)],
    ['more entries than fit', (b: Buffer) => b.writeUInt16BE(4000, 6)],
    ['a level too high', (b: Buffer) => b.writeUInt16BE(9, 4)],
    ['a key that its child does not begin with', (b: Buffer) => b.writeUInt32BE(1001, 56)],
  ] as const) {
    const fs = make();
    const root = fs.treeBlocks.get(0)![0]!;
    edit(fs.pieces.get(root)!, root / 4096);
    fs.seal(root, 'tree');
    for (const state of ['idle', 'frozen'] as const)
      assert.equal((await whole(fs, state)).everything, true, what);
    // Live: the group counts as used, the others are still known.
    const live = await whole(fs, 'live');
    assert.equal(live.everything, false);
    assert.ok(live.used.length > 30);
  }
});

test('extents that overlap, are empty, lie outside or do not sum up make everything used', async () => {
  for (const [what, free] of [
    ['overlap', [[1000, 10], [1009, 5]]], // prettier-ignore
    ['unsorted', [[1010, 10], [1000, 5]]], // prettier-ignore
    ['empty', [[1000, 0]]],
    ['past the end', [[16000, 1000]]],
    ['in the headers', [[0, 4]]],
  ] as const)
    assert.equal(
      (await whole(syntheticXfs({ free: (group) => (group === 0 ? free : []) }))).everything,
      true,
      what,
    );
  const fs = syntheticXfs();
  const agf = fs.pieces.get(512)!;
  agf.writeUInt32BE(agf.readUInt32BE(52) - 1, 52);
  fs.seal(512, 'agf');
  const outcome = await whole(fs);
  assert.match(outcome.reason, /tree holds \d+ blocks, the AGF says \d+/);
  assert.equal((await whole(fs, 'live')).everything, false);
});

test('features: the known are read, the unknown make everything used', async () => {
  const superblock = async (edit: (sb: Buffer) => void, state?: MountState): Promise<Outcome> => {
    const fs = syntheticXfs();
    edit(fs.pieces.get(0)!);
    fs.seal(0, 'sb');
    return whole(fs, state);
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

test('a log that is not plainly clean makes an idle filesystem used as a whole', async () => {
  const log = (fs: SyntheticXfs): Buffer =>
    [...fs.pieces.values()].find((p) => p.readUInt32BE(0) === 0xfeedbabe)!;
  for (const [what, edit] of [
    ['no unmount flag', (r: Buffer) => r.writeUInt8(0, 521)],
    ['another filesystem', (r: Buffer) => r.writeUInt8(9, 304)],
    ['never written', (r: Buffer) => r.fill(0)],
    ['a record of another length', (r: Buffer) => r.writeUInt32BE(1024, 12)],
    ['cycles that cannot be', (r: Buffer) => r.writeUInt32BE(7, 4)],
    ['two operations', (r: Buffer) => r.writeUInt32BE(2, 40)],
  ] as const) {
    const fs = syntheticXfs();
    edit(log(fs));
    assert.equal((await whole(fs)).everything, true, what);
    assert.match((await whole(fs)).reason, /may not be up to date/);
    for (const state of ['frozen', 'live'] as const)
      assert.equal((await whole(fs, state)).everything, false, what);
  }
});

test('a filesystem larger than its device is used as a whole, and no superblock is no filesystem', async () => {
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
