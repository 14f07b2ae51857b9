import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { allMarked, clearShared, markShared } from './atomic-bitmap.ts';

test('atomic marking and clearing change every unit of the range and no other', () => {
  const unit = 4096;
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 150 }),
      fc.array(fc.record({ set: fc.boolean(), from: fc.nat(), count: fc.nat({ max: 70 }) }), {
        maxLength: 20,
      }),
      (units, steps) => {
        const bitmap = new Bitmap(units * unit - 7, unit);
        const model = new Array<boolean>(units).fill(false);
        for (const { set, from, count } of steps) {
          const first = from % units;
          const end = Math.min(units, first + count);
          const offset = first * unit;
          const length = Math.min(end * unit, bitmap.size) - offset;
          if (set) markShared(bitmap, offset, length);
          else clearShared(bitmap, offset, length);
          model.fill(set, first, end);
          assert.equal(allMarked(bitmap, offset, length), set || length === 0);
        }
        assert.deepEqual(
          model.map((_bit, i) => bitmap.has(i)),
          model,
        );
      },
    ),
  );
});
