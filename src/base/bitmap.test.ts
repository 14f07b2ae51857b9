import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Bitmap } from './bitmap.ts';
import { totalLength } from './extents.ts';

const unit = 4096;

/** A device of some units with a short tail, and ranges in it. */
const scenario = fc
  .record({ units: fc.integer({ min: 1, max: 200 }), tail: fc.integer({ min: 1, max: unit }) })
  .chain(({ units, tail }) => {
    const size = (units - 1) * unit + tail;
    const range = fc
      .tuple(fc.nat({ max: size - 1 }), fc.nat({ max: size }))
      .map(([offset, length]) => ({ offset, length: Math.min(length, size - offset) }));
    const step = fc.record({ set: fc.boolean(), range });
    return fc.record({ size: fc.constant(size), steps: fc.array(step, { maxLength: 30 }) });
  });

/** The model, a slow and simple bitmap: one boolean per unit. */
function model(
  size: number,
  steps: readonly { set: boolean; range: { offset: number; length: number } }[],
): boolean[] {
  const bits = new Array<boolean>(Math.ceil(size / unit)).fill(false);
  for (const { set, range } of steps) {
    const end = range.offset + range.length;
    bits.forEach((_bit, i) => {
      const from = i * unit;
      const to = Math.min(from + unit, size);
      if (set && range.length > 0 && from < end && to > range.offset) bits[i] = true;
      if (!set && from >= range.offset && to <= end) bits[i] = false;
    });
  }
  return bits;
}

test('marking and clearing agree with a model, and so do the extents', () => {
  fc.assert(
    fc.property(scenario, ({ size, steps }) => {
      const bitmap = new Bitmap(size, unit);
      for (const { set, range } of steps)
        if (set) bitmap.mark(range.offset, range.length);
        else bitmap.clear(range.offset, range.length);
      const bits = model(size, steps);
      assert.deepEqual(
        bits.map((_bit, i) => bitmap.has(i)),
        bits,
      );
      assert.equal(bitmap.count(), bits.filter(Boolean).length);
      const extents = [...bitmap.extents()];
      assert.equal(totalLength(extents), bitmap.bytes());
      const again = new Bitmap(size, unit);
      for (const { offset, length } of extents) again.mark(offset, length);
      assert.deepEqual(again.content, bitmap.content);
    }),
  );
});

test('set operations work unit by unit', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100 }), fc.array(fc.nat()), fc.array(fc.nat()), (units, a, b) => {
      const make = (marks: readonly number[]): Bitmap => {
        const bitmap = new Bitmap(units * unit, unit);
        for (const mark of marks) bitmap.mark((mark % units) * unit, unit);
        return bitmap;
      };
      const both = (operate: (left: Bitmap, right: Bitmap) => void): Bitmap => {
        const left = make(a);
        operate(left, make(b));
        return left;
      };
      const [or, and, andNot] = [
        both((l, r) => l.or(r)),
        both((l, r) => l.and(r)),
        both((l, r) => l.andNot(r)),
      ];
      for (let i = 0; i < units; i++) {
        const [inA, inB] = [make(a).has(i), make(b).has(i)];
        assert.equal(or.has(i), inA || inB);
        assert.equal(and.has(i), inA && inB);
        assert.equal(andNot.has(i), inA && !inB);
      }
    }),
  );
});

interface Step {
  readonly set: boolean;
  readonly from: number;
  readonly count: number;
}

test('bitmaps of many pages, most of them empty or full', () => {
  // A page of the bitmap is skipped as a whole. It covers 32,768 units.
  const page = 32 * 1024;
  const range = fc.record({
    set: fc.boolean(),
    from: fc.oneof(
      fc.nat(5 * page),
      fc.nat(5).map((n) => n * page),
    ),
    count: fc.oneof(fc.nat(100), fc.nat(3 * page), fc.constantFrom(page, 2 * page)),
  });
  const ranges = fc.array(range, { maxLength: 8 });
  const build = (units: number, list: readonly Step[]): [Bitmap, Uint8Array] => {
    const bitmap = new Bitmap(units * unit, unit);
    const bits = new Uint8Array(units);
    for (const { set, from, count } of list) {
      const end = Math.min(units, from + count);
      if (end <= from) continue;
      if (set) bitmap.mark(from * unit, (end - from) * unit);
      else bitmap.clear(from * unit, (end - from) * unit);
      bits.fill(set ? 1 : 0, from, end);
    }
    return [bitmap, bits];
  };
  const check = (bitmap: Bitmap, bits: Uint8Array): void => {
    const again = new Uint8Array(bits.length);
    let end = -1;
    for (const { offset, length } of bitmap.extents()) {
      assert.ok(offset / unit > end);
      end = (offset + length) / unit;
      again.fill(1, offset / unit, end);
    }
    assert.equal(Buffer.compare(again, bits), 0);
    const count = bits.reduce((sum, bit) => sum + bit, 0);
    assert.equal(bitmap.count(), count);
    assert.equal(bitmap.isEmpty(), count === 0);
  };
  fc.assert(
    fc.property(fc.integer({ min: 4 * page, max: 5 * page + 40 }), ranges, ranges, (units, a, b) => {
      const [left, leftBits] = build(units, a);
      const [right, rightBits] = build(units, b);
      check(left, leftBits);
      const both = (
        operate: (mine: Bitmap) => void,
        expected: (mine: number, other: number) => number,
      ): void => {
        const mine = left.clone();
        operate(mine);
        check(
          mine,
          leftBits.map((bit, i) => expected(bit, rightBits[i]!)),
        );
      };
      both(
        (mine) => mine.or(right),
        (x, y) => x | y,
      );
      both(
        (mine) => mine.and(right),
        (x, y) => x & y,
      );
      check(
        left.intersection(right),
        leftBits.map((bit, i) => bit & rightBits[i]!),
      );
      both(
        (mine) => mine.andNot(right),
        (x, y) => x & (1 - y),
      );
      both(
        (mine) => mine.copy(right),
        (_x, y) => y,
      );
      both(
        (mine) => mine.fill(false),
        () => 0,
      );
      both(
        (mine) => mine.fill(true),
        () => 1,
      );
    }),
    { numRuns: 40 },
  );
});

test('a filled bitmap covers the device and nothing after its end', () => {
  const bitmap = new Bitmap(100 * unit + 5, unit);
  bitmap.fill(true);
  assert.deepEqual([...bitmap.extents()], [{ offset: 0, length: 100 * unit + 5 }]);
  assert.equal(bitmap.bytes(), 100 * unit + 5);
});

test('bitmaps of different sizes or units are refused, and the message has the numbers', () => {
  assert.throws(
    () => new Bitmap(8192, 4096).or(new Bitmap(4096, 4096)),
    /8192 bytes in units of 4096, 4096 in units/,
  );
  assert.throws(() => new Bitmap(8192, 3000), /3000 is not a power of two/);
});
