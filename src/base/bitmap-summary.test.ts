/**
 * The summary of a bitmap: operations skip the pages that it does not name. So each operation is compared with a set of
 * numbers, over sizes near the ends of pages, and through two views of the same memory, as two threads have.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Bitmap } from './bitmap.ts';

const unit = 4096;
/** Units of a page, and of the pages of one word of the summary. */
const page = 32 * 1024;
const pages = 32 * page;

type Model = Set<number>;
type Step = (views: readonly [Bitmap, Bitmap], models: [Model, Model], units: number) => void;

/** Units near the ends of pages and of summary words, and others. */
const place = fc.oneof(
  fc.nat(4 * page),
  fc
    .tuple(fc.constantFrom(0, 1, 2, 3, 31, 32, 33), fc.integer({ min: -40, max: 40 }))
    .map(([at, by]) => Math.max(0, at * page + by)),
);
const length = fc.oneof(
  { weight: 5, arbitrary: fc.nat(70) },
  { weight: 1, arbitrary: fc.constantFrom(page, 2 * page) },
);

const changed = (set: boolean, first: number, end: number, model: Model): void => {
  for (let i = first; i < end; i++)
    if (set) model.add(i);
    else model.delete(i);
};

const range = (
  act: (bitmap: Bitmap, offset: number, bytes: number) => void,
  set: boolean,
): fc.Arbitrary<Step> =>
  fc.tuple(place, length).map(([from, count]) => ([bitmap], [model], units) => {
    const first = from % units;
    const end = Math.min(units, first + count);
    act(bitmap, first * unit, Math.min(end * unit, bitmap.size) - first * unit);
    changed(set, first, end, model);
  });

/** One word, as threads change it. */
const words: fc.Arbitrary<Step> = fc
  .tuple(place, fc.integer(), fc.boolean())
  .map(([at, bits, set]): Step => ([bitmap], [model], units) => {
    const word = (at % units) >>> 5;
    // No unit after the end of the device.
    const last = Math.min(units - word * 32, 32);
    const mask = last === 32 ? bits : bits & ((1 << last) - 1);
    if (set) bitmap.orWord(word, mask);
    else bitmap.andNotWord(word, mask);
    for (let i = 0; i < 32; i++)
      if ((mask & (1 << i)) !== 0) changed(set, word * 32 + i, word * 32 + i + 1, model);
  });

const whole: readonly Step[] = [
  ([left, right], models) => {
    left.or(right);
    models[0] = new Set([...models[0], ...models[1]]);
  },
  ([left, right], models) => {
    left.and(right);
    models[0] = new Set([...models[0]].filter((i) => models[1].has(i)));
  },
  ([left, right], models) => {
    left.andNot(right);
    models[0] = new Set([...models[0]].filter((i) => !models[1].has(i)));
  },
  ([left, right], models) => {
    left.copy(right);
    models[0] = new Set(models[1]);
  },
  ([left, right], models) => {
    left.load(Buffer.from(right.content));
    models[0] = new Set(models[1]);
  },
  ([left], models) => {
    left.fill(false);
    models[0] = new Set();
  },
  ([left], models, units) => {
    // A set of numbers is slow for a large device.
    if (units > 5 * page) return;
    left.fill(true);
    changed(true, 0, units, models[0]);
  },
];

const step = fc.oneof(
  { weight: 3, arbitrary: range((bitmap, offset, bytes) => bitmap.mark(offset, bytes), true) },
  { weight: 1, arbitrary: range((bitmap, offset, bytes) => bitmap.clear(offset, bytes), false) },
  { weight: 3, arbitrary: words },
  { weight: 4, arbitrary: fc.constantFrom(...whole) },
);

/** Compares all that a bitmap answers with the model, and the bitmap with one that has a new summary. */
function check(bitmap: Bitmap, model: Model): void {
  const sorted = [...model].sort((a, b) => a - b);
  const extents: { offset: number; length: number }[] = [];
  let end = -1;
  for (const index of sorted) {
    const bytes = Math.min(unit, bitmap.size - index * unit);
    if (index === end) extents.at(-1)!.length += bytes;
    else extents.push({ offset: index * unit, length: bytes });
    end = index + 1;
  }
  assert.deepEqual([...bitmap.extents()], extents);
  assert.equal(bitmap.count(), sorted.length);
  assert.equal(
    bitmap.bytes(),
    extents.reduce((sum, each) => sum + each.length, 0),
  );
  assert.equal(bitmap.isEmpty(), sorted.length === 0);
  for (const index of [0, page - 1, page, pages - 1, pages, sorted[0] ?? 0, (sorted.at(-1) ?? 0) + 1]) {
    if (index >= bitmap.units) continue;
    assert.equal(bitmap.has(index), model.has(index));
    assert.equal(bitmap.touches(index * unit, 1), model.has(index));
    // From the middle of a page on.
    const [next] = bitmap.extents(index * unit);
    const expected = sorted.find((each) => each >= index);
    assert.equal(next?.offset, expected === undefined ? undefined : expected * unit);
  }
}

test('every operation agrees with a set of numbers, through either view of the memory', () => {
  const units = fc.oneof(
    fc.integer({ min: 1, max: page + 33 }),
    fc.integer({ min: 3 * page - 33, max: 3 * page + 33 }),
    fc.integer({ min: pages - 33, max: pages + page + 33 }),
  );
  const steps = fc.array(fc.record({ step, swapped: fc.boolean(), view: fc.nat(3) }), { maxLength: 12 });
  fc.assert(
    fc.property(units, fc.integer({ min: 1, max: unit }), steps, (count, tail, list) => {
      const size = (count - 1) * unit + tail;
      const made = [new Bitmap(size, unit), new Bitmap(size, unit)] as const;
      const views = made.map((each) => [each, new Bitmap(size, unit, each.buffer)] as const);
      const models: [Model, Model] = [new Set(), new Set()];
      for (const { step: act, swapped, view } of list) {
        const [left, right] = [views[0]![view & 1]!, views[1]![view >>> 1]!];
        if (swapped) {
          const turned: [Model, Model] = [models[1], models[0]];
          act([right, left], turned, count);
          [models[1], models[0]] = turned;
        } else act([left, right], models, count);
      }
      for (const [i, pair] of views.entries()) for (const view of pair) check(view, models[i]!);
      const [a, b] = made;
      check(a.clone(), models[0]);
      check(a.intersection(b), new Set([...models[0]].filter((i) => models[1].has(i))));
    }),
    { numRuns: 150 },
  );
});

test('operations over pages that one, both or neither of the bitmaps has', () => {
  const marked = (units: Model): Bitmap => {
    const bitmap = new Bitmap(34 * page * unit, unit);
    for (const index of units) bitmap.mark(index * unit, unit);
    return bitmap;
  };
  // The third and the last page have a unit that both have, and one that only one has.
  const left = new Set([5, page + 7, 3 * page + 9, 3 * page + 10, 33 * page + 1]);
  const right = new Set([page + 8, 2 * page, 3 * page + 9, 33 * page + 1, 33 * page + 2]);
  for (const operation of whole) {
    const models: [Model, Model] = [new Set(left), new Set(right)];
    const views = [marked(left), marked(right)] as const;
    operation(views, models, views[0].units);
    check(views[0], models[0]);
    check(views[1], right);
  }
  check(marked(left).intersection(marked(right)), new Set([3 * page + 9, 33 * page + 1]));
});

test('a unit is never visible without its summary bit, at no moment of marking it', (t) => {
  const bitmap = new Bitmap(3 * pages * unit, unit);
  const other = new Bitmap(bitmap.size, unit, bitmap.buffer);
  const marks = [0, page - 1, page, pages - 1, pages, 2 * pages + 5, 3 * pages - 1];
  const original = Atomics.or.bind(Atomics);
  const seen = (): number => marks.filter((index) => other.has(index)).length;
  let moments = 0;
  t.mock.method(Atomics, 'or', (array: Int32Array, index: number, value: number) => {
    const before = original(array, index, value);
    moments++;
    assert.equal(other.count(), seen());
    return before;
  });
  for (const index of marks) bitmap.orWord(index >>> 5, 1 << (index & 31));
  assert.equal(seen(), marks.length);
  // One step for each unit, and one for each page. Two of the units share a page.
  assert.equal(moments, 2 * marks.length - 1);
});

test('pages that became empty are read no more', () => {
  const size = 4 * page * unit;
  const full = new Bitmap(size, unit);
  full.fill(true);
  const one = new Bitmap(size, unit);
  one.mark(2 * page * unit, unit);
  const emptied: Record<string, (bitmap: Bitmap) => void> = {
    'fill(false)': (bitmap) => bitmap.fill(false),
    andNot: (bitmap) => bitmap.andNot(full),
    and: (bitmap) => bitmap.and(one),
    copy: (bitmap) => bitmap.copy(one),
  };
  for (const [name, empty] of Object.entries(emptied)) {
    const bitmap = full.clone();
    empty(bitmap);
    // A unit that is set without the summary shows whether the page is read.
    bitmap.content[0] = 1;
    assert.deepEqual([...bitmap.extents(0, page * unit)], [], name);
  }
});

test('memory that is too small, and content of another length, are refused with both numbers', () => {
  const words = new SharedArrayBuffer(4096);
  assert.throws(() => new Bitmap(page * unit, unit, words), /a bitmap of 4100 bytes does not fit into 4096/);
  assert.throws(() => new Bitmap(page * unit, unit).load(Buffer.alloc(4092)), /4092 bytes, not 4096/);
});
