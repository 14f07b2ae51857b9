import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { usedRuns } from './bitmap-runs.ts';

test('finds the runs that a bit by bit walk finds, at any alignment', () => {
  // Whole bytes of ones and zeros are frequent in the test data, so that words are skipped.
  const byte = fc.oneof(fc.constant(0), fc.constant(255), fc.integer({ min: 0, max: 255 }));
  fc.assert(
    fc.property(
      fc.array(byte, { minLength: 1, maxLength: 40 }),
      fc.nat(3),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (bytes, shift, part) => {
        const backing = new Uint8Array(bytes.length + shift);
        backing.set(bytes, shift);
        const bitmap = backing.subarray(shift);
        const bits = Math.max(1, Math.floor(part * bytes.length * 8));

        const runs: [number, number][] = [];
        const free = usedRuns(bitmap, bits, (from, to) => runs.push([from, to]));
        const expected: [number, number][] = [];
        for (let bit = 0; bit < bits; bit++) {
          if (((bitmap[bit >> 3]! >> (bit & 7)) & 1) === 0) continue;
          const last = expected.at(-1);
          if (last?.[1] === bit) last[1] = bit + 1;
          else expected.push([bit, bit + 1]);
        }
        assert.deepEqual(runs, expected);
        assert.equal(free, bits - expected.reduce((sum, [from, to]) => sum + to - from, 0));
      },
    ),
  );
});
