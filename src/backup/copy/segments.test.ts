import assert from 'node:assert/strict';
import test from 'node:test';
import { Bitmap } from '../../base/bitmap.ts';
import { GiB, MiB } from '../../base/bytes.ts';
import { Samples, maximumSamples } from './samples.ts';
import { SegmentCursor, itemSize, maximumItems, spread } from './segments.ts';

const unit = 65536;

test('segments walk every extent once, in items of at most 4 MiB', () => {
  const set = new Bitmap(GiB, unit);
  set.mark(0, unit);
  set.mark(100 * MiB, 50 * MiB);
  const cursor = new SegmentCursor(set);
  const items = new Float64Array(maximumItems * 2);
  const again = new Bitmap(GiB, unit);
  for (;;) {
    const { count } = cursor.next(items, 20 * MiB);
    if (count === 0) break;
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      assert.ok(items[i * 2 + 1]! <= itemSize);
      again.mark(items[i * 2]!, items[i * 2 + 1]!);
      bytes += items[i * 2 + 1]!;
    }
    assert.ok(bytes < 20 * MiB + itemSize);
  }
  assert.deepEqual(again.content, set.content);
});

test('the places to measure are spread over the set', () => {
  const set = new Bitmap(GiB, unit);
  set.fill(true);
  const places = spread(set, 8);
  assert.equal(places.length, 8);
  assert.ok(places.at(-1)!.offset > 0.8 * GiB);
  assert.deepEqual(spread(new Bitmap(GiB, unit), 8), []);
});

test('samples contain the first and the last used unit, and are found by range', () => {
  const used = new Bitmap(GiB, unit);
  used.mark(5 * unit, 300 * unit);
  used.mark(1000 * unit, 3 * unit);
  const samples = new Samples();
  samples.choose(used);
  assert.equal(samples.count, maximumSamples);
  assert.equal(samples.get(0).unit, 5);
  assert.equal(samples.get(maximumSamples - 1).unit, 1002);
  const seen: number[] = [];
  samples.within(1000, 1003, (_sample, at) => seen.push(at));
  assert.ok(seen.includes(1002) && seen.every((at) => at >= 1000 && at < 1003));
  assert.equal(samples.get(0).hash, undefined);
  samples.record(0, new Uint8Array(16).fill(7));
  assert.deepEqual(samples.get(0).hash, new Uint8Array(16).fill(7));
});

test('a set smaller than the sample is sampled as a whole', () => {
  const used = new Bitmap(GiB, unit);
  used.mark(0, 2 * unit);
  used.mark(77 * unit, unit);
  const samples = new Samples();
  samples.choose(used);
  assert.deepEqual(
    [0, 1, 2].map((i) => samples.get(i).unit),
    [0, 1, 77],
  );
  assert.equal(samples.count, 3);
});
