import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { SparseBitmap } from './sparse-bitmap.ts';

test('a sparse bitmap is a set of units', () => {
  const range = fc.tuple(fc.integer({ min: 0, max: 70_000 }), fc.integer({ min: 0, max: 3000 }));
  fc.assert(
    fc.property(
      fc.array(fc.record({ add: fc.boolean(), range }), { maxLength: 12 }),
      range,
      (steps, [at, count]) => {
        const bitmap = new SparseBitmap();
        const model = new Set<number>();
        for (const step of steps) {
          const [first, length] = step.range;
          if (step.add) bitmap.add(first, first + length);
          else bitmap.remove(first, first + length);
          for (let unit = first; unit < first + length; unit++)
            if (step.add) model.add(unit);
            else model.delete(unit);
        }
        const units = [...bitmap.runs()].flatMap(([first, end]) =>
          Array.from({ length: end - first }, (_, i) => first + i),
        );
        assert.deepEqual(
          units.sort((a, b) => a - b),
          [...model].sort((a, b) => a - b),
        );
        const inside = [...model].some((unit) => unit >= at && unit < at + count);
        assert.equal(bitmap.touches(at, at + count), inside);
      },
    ),
    { numRuns: 50 },
  );
});
