/**
 * Measures the operations on the bitmap of a whole device, which a freeze runs about a dozen of, and the marking of the
 * copying threads.
 *
 *     scripts/node bench/bitmap.ts [--tebibytes 90] [--rounds 5]
 *
 * The unit is 64 KiB. Each figure is the fastest round, because other work on the machine only makes a round slower.
 */
import { parseArgs } from 'node:util';
import { markShared } from '../src/backup/copy/atomic-bitmap.ts';
import { Bitmap } from '../src/base/bitmap.ts';
import { KiB, MiB, TiB } from '../src/base/bytes.ts';

const { values } = parseArgs({
  options: {
    tebibytes: { type: 'string', default: '90' },
    rounds: { type: 'string', default: '5' },
  },
});
const size = Number(values.tebibytes) * TiB;
const rounds = Number(values.rounds);
const unit = 64 * KiB;

type Fill = (bitmap: Bitmap, seed: number) => void;
type Operation = (left: Bitmap, right: Bitmap) => unknown;

const fills: Record<string, Fill> = {
  '1,000 units': (bitmap, seed) => {
    for (let i = 0; i < 1000; i++) bitmap.mark(((i * 0x9e3779b1 + seed) % bitmap.units) * unit, unit);
  },
  'all units': (bitmap) => bitmap.fill(true),
};

const operations: Record<string, Operation> = {
  or: (left, right) => left.or(right),
  and: (left, right) => left.and(right),
  andNot: (left, right) => left.andNot(right),
  copy: (left, right) => left.copy(right),
  intersection: (left, right) => left.intersection(right),
  clone: (left) => left.clone(),
  'count and bytes': (left) => left.bytes(),
  isEmpty: (left) => left.isEmpty(),
  extents: (left) => {
    let extents = 0;
    for (const extent of left.extents()) extents += Math.sign(extent.length);
    return extents;
  },
  'fill(false)': (left) => left.fill(false),
};

// Only one pair for all: Node is slow to give back the memory of bitmaps that are no longer used.
const [left, right] = [new Bitmap(size, unit), new Bitmap(size, unit)];

/** Milliseconds of the fastest round. */
function fastest(operate: Operation, fill: Fill): number {
  const times = Array.from({ length: rounds }, () => {
    for (const bitmap of [left, right]) bitmap.fill(false);
    fill(left, 0);
    fill(right, 7 * 32);
    const start = performance.now();
    operate(left, right);
    return performance.now() - start;
  });
  return Math.min(...times);
}

/** Nanoseconds of one `markShared` of 1 MiB, in a device of 1 TiB. */
function marking(bytesPerUnit: number): number {
  const bitmap = new Bitmap(TiB, bytesPerUnit);
  const marks = 2_000_000;
  const times = Array.from({ length: rounds }, () => {
    const start = performance.now();
    for (let i = 0; i < marks; i++) markShared(bitmap, (i * MiB) % TiB, MiB);
    return performance.now() - start;
  });
  return (Math.min(...times) * 1e6) / marks;
}

// All with few units first: memory that was never written costs nothing yet.
const results = Object.entries(fills).map(([title, fill]) => ({
  title,
  times: Object.values(operations).map((operate) => fastest(operate, fill)),
}));
console.log(`| ${values.tebibytes} TiB | ${results.map(({ title }) => `${title}, ms`).join(' | ')} |`);
console.log(`| --- | ${results.map(() => '---').join(' | ')} |`);
for (const [i, name] of Object.keys(operations).entries())
  console.log(`| ${name} | ${results.map(({ times }) => times[i]!.toFixed(2)).join(' | ')} |`);
console.log(
  `\nmarkShared of 1 MiB: ${marking(4 * KiB).toFixed(0)} ns in units of 4 KiB, ${marking(unit).toFixed(0)} ns of 64 KiB`,
);
