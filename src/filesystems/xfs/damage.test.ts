/** Damaged synthetic XFS filesystems: damage must never end in a wrong map, a crash or a loop. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type SyntheticXfs, syntheticXfs } from '../../../test/helpers/synthetic-xfs.ts';
import { extentsOf, mapOf, wholeMap } from '../../../test/helpers/synthetic-xfs-map.ts';
import { without } from '../../../test/helpers/used-extents.ts';
import { AgentError } from '../../base/errors.ts';
import type { ReadAt } from '../../block/source.ts';

test('any bit flipped in a v5 superblock, AGF or tree block makes everything used', async () => {
  const fs = syntheticXfs({ fanout: 3, free: () => extentsOf(Array(30).fill([2, 3]), 1000) });
  const places = [0, 512, ...fs.treeBlocks.get(0)!, ...fs.treeBlocks.get(2)!];
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...places), fc.nat(), async (place, where) => {
      const bit = where % (fs.pieces.get(place)!.length * 8);
      flip(fs, place, bit);
      try {
        assert.equal((await wholeMap(fs)).everything, true, `bit ${bit} at ${place}`);
      } finally {
        flip(fs, place, bit);
      }
    }),
    { numRuns: 300 },
  );
  assert.equal((await wholeMap(fs)).everything, false);
});

function flip(fs: SyntheticXfs, place: number, bit: number): void {
  const piece = fs.pieces.get(place)!;
  piece[bit >>> 3] = piece[bit >>> 3]! ^ (1 << (bit & 7));
}

test('a failed checksum is reported with its place and both numbers', async () => {
  const fs = syntheticXfs({ fanout: 3, free: () => extentsOf(Array(30).fill([2, 3]), 1000) });
  const place = fs.treeBlocks.get(1)!.at(-1)!;
  flip(fs, place, 800);
  const stored = fs.pieces.get(place)!.readUInt32LE(52).toString(16).padStart(8, '0');
  const { reason } = await wholeMap(fs);
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
        free: () => extentsOf(Array(60).fill([2, 3]), 4400),
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

test('one wrong byte in version 4, which has no checksums, never makes a used block free', async () => {
  const fs = syntheticXfs({
    version: 4,
    fanout: 20,
    agBlocks: 2048,
    blocks: 4096,
    free: () => extentsOf(Array(30).fill([2, 3]), 1000),
  });
  const truth = await wholeMap(fs, 'frozen');
  assert.equal(truth.everything, false);
  const places = [
    ...[0, 512].map((start) => [start, 256]),
    ...fs.treeBlocks.get(0)!.map((start) => [start, 272]),
  ];
  for (const [start, length] of places as [number, number][])
    for (let at = 0; at < length; at++)
      for (const bits of [1, 1 << (1 + (at % 7))]) {
        const piece = fs.pieces.get(start)!;
        piece[at] = piece[at]! ^ bits;
        const map = await wholeMap(fs, 'frozen');
        piece[at] = piece[at]! ^ bits;
        const about = `byte ${at} at ${start} with bits ${bits}`;
        if (!map.everything) assert.deepEqual(without(truth.used, [...map.used]), [], about);
      }
});

test('metadata that is free in the trees makes everything used, also if checksums are right', async () => {
  const fs = syntheticXfs({ fanout: 20, free: () => extentsOf(Array(30).fill([2, 3]), 1000) });
  const first = fs.treeBlocks
    .get(0)!
    .find(
      (offset) =>
        fs.pieces.get(offset)!.readUInt32BE(8) === 0xffffffff && fs.pieces.get(offset)!.readUInt16BE(4) === 0,
    )!;
  const piece = fs.pieces.get(first)!;
  for (const [block, what] of [
    [Math.floor(first / fs.blockSize), 'the leaf itself'],
    [fs.reserved - 1, 'the log'],
  ] as const) {
    const before = piece.readUInt32BE(56);
    piece.writeUInt32BE(block, 56);
    fs.seal(first, 'tree');
    // The parent's key is the first record's.
    const root = fs.treeBlocks.get(0)![0]!;
    fs.pieces.get(root)!.writeUInt32BE(block, 56);
    fs.seal(root, 'tree');
    const map = await wholeMap(fs);
    assert.equal(map.everything, true, what);
    assert.match(map.reason, /holds block \d+, which is metadata/, what);
    piece.writeUInt32BE(before, 56);
  }
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
  assert.equal((await wholeMap(fs)).everything, true);
});

test('cycles among children and siblings end with an error, also if checksums are right', async () => {
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
      assert.equal((await wholeMap(fs, state)).everything, true, what);
    // Live: the group counts as used, the other groups are still known.
    const live = await wholeMap(fs, 'live');
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
      (await wholeMap(syntheticXfs({ free: (group) => (group === 0 ? free : []) }))).everything,
      true,
      what,
    );
  const fs = syntheticXfs();
  const agf = fs.pieces.get(512)!;
  agf.writeUInt32BE(agf.readUInt32BE(52) - 1, 52);
  fs.seal(512, 'agf');
  const outcome = await wholeMap(fs);
  assert.match(outcome.reason, /tree holds \d+ blocks, the AGF says \d+/);
  assert.equal((await wholeMap(fs, 'live')).everything, false);
});

test('a log that is not clearly clean makes an idle filesystem used as a whole', async () => {
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
    assert.equal((await wholeMap(fs)).everything, true, what);
    assert.match((await wholeMap(fs)).reason, /may not be up to date/);
    for (const state of ['frozen', 'live'] as const)
      assert.equal((await wholeMap(fs, state)).everything, false, what);
  }
});
