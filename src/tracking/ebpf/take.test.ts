import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { KiB, MiB } from '../../base/bytes.ts';
import { pageSize, shapeFor, styles, type Style } from './layout.ts';
import { copyMarks, fillUnits, type Marked, moveMarks } from './take.ts';

function empty(size: number, style: Style): Marked {
  const shape = shapeFor(size, style);
  const memory = new ArrayBuffer(shape.pages * pageSize);
  return {
    shape,
    fine: new Uint8Array(memory, shape.fineAt * pageSize, (shape.coarseAt - shape.fineAt) * pageSize),
    coarse: new Uint8Array(memory, shape.coarseAt * pageSize, (shape.takenAt - shape.coarseAt) * pageSize),
    taken: new Int32Array(memory, shape.takenAt * pageSize, Math.ceil(shape.units / 32)),
  };
}

/** Marks as the programs in the kernel do. */
function markIn(map: Uint8Array, style: Style, index: number): void {
  if (style === 'bytes') map[index] = 1;
  else map[index >>> 3] = map[index >>> 3]! | (1 << (index & 7));
}

function units(map: Int32Array, count: number): number[] {
  return Array.from({ length: count }, (_, i) => i).filter((i) => (map[i >>> 5]! & (1 << (i & 31))) !== 0);
}

function asBytes(map: Int32Array): Buffer {
  return Buffer.from(map.buffer, map.byteOffset, map.byteLength);
}

const size = 70 * MiB + 12 * KiB;

for (const style of ['bits', 'bytes'] as const) {
  const { groupShift } = styles[style];
  const groups = Math.ceil(Math.ceil(size / 4096) / 2 ** groupShift);

  test(`${style}: a take yields the marks and the units taken before, and clears only the marks`, () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(Math.ceil(size / 4096) - 1), { maxLength: 50 }),
        fc.array(fc.nat(groups - 1), { maxLength: 3 }),
        fc.array(fc.nat(Math.ceil(size / 4096) - 1), { maxLength: 20 }),
        (fine, coarse, before) => {
          const marked = empty(size, style);
          for (const unit of before) fillUnits(marked.taken, unit, unit + 1);
          for (const unit of fine) markIn(marked.fine, style, unit);
          for (const group of coarse) markIn(marked.coarse, style, group);

          const expected = new Bitmap(size, 4096);
          for (const unit of [...fine, ...before]) expected.mark(unit * 4096, 1);
          for (const group of coarse) expected.mark(group * 2 ** groupShift * 4096, 2 ** groupShift * 4096);

          const look = new Int32Array(marked.taken);
          copyMarks(marked, look);
          assert.deepEqual(asBytes(look), expected.content);
          moveMarks(marked);
          assert.deepEqual(asBytes(marked.taken), expected.content);
          assert.ok(marked.fine.every((each) => each === 0));
          assert.ok(marked.coarse.every((each) => each === 0));
        },
      ),
      { numRuns: 40 },
    );
  });

  test(`${style}: the last group ends with the device`, () => {
    const marked = empty(size, style);
    markIn(marked.coarse, style, groups - 1);
    moveMarks(marked);
    const first = (groups - 1) * 2 ** groupShift;
    const last = marked.shape.units - 1;
    const found = units(marked.taken, marked.taken.length * 32);
    assert.deepEqual([found[0], found.at(-1), found.length], [first, last, last - first + 1]);
  });
}

test('filling whole words gives the same result as filling single units', () => {
  fc.assert(
    fc.property(fc.nat(400), fc.nat(400), (a, b) => {
      const [from, to] = a < b ? [a, b] : [b, a];
      const map = new Int32Array(13);
      fillUnits(map, from, to);
      assert.deepEqual(
        units(map, 416),
        Array.from({ length: to - from }, (_, i) => from + i),
      );
    }),
  );
});
