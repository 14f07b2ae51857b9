import assert from 'node:assert/strict';
import test from 'node:test';
import { Bitmap } from '../../base/bitmap.ts';
import { RecentUnits } from './recent-units.ts';

const unit = 65536;

test('all units of a small set are noted', () => {
  const set = new Bitmap(100 * unit - 5, 4096);
  for (const place of [0, 7, 8, 99]) set.mark(place * unit + 4096, 1);
  const recent = new RecentUnits();
  recent.note(set);
  assert.deepEqual(recent.units, [0, 7, 8, 99]);
});

test('a large set gives an even spread, and later passes push out earlier ones', () => {
  const recent = new RecentUnits();
  for (let pass = 0; pass < 3; pass++) {
    const set = new Bitmap(4800 * unit, unit);
    set.mark(pass * 1600 * unit, 1600 * unit);
    recent.note(set);
  }
  const units = recent.units;
  assert.equal(units.length, 32);
  assert.deepEqual(
    units,
    Array.from({ length: 32 }, (_, i) => 1600 + i * 100),
  );
});

test('an empty pass keeps the units noted before', () => {
  const set = new Bitmap(10 * unit, unit);
  const recent = new RecentUnits();
  recent.note(set);
  assert.deepEqual(recent.units, []);
  set.mark(unit, 1);
  recent.note(set);
  recent.note(new Bitmap(10 * unit, unit));
  assert.deepEqual(recent.units, [1]);
});
