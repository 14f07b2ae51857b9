import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Extent, merged } from '../base/extents.ts';
import { ExtentBatches } from './extent-batches.ts';

test('gives the same result as merging, wherever the batches are split', () => {
  const step = fc.record({ gap: fc.nat(3), length: fc.nat(5), take: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const batches = new ExtentBatches();
      const added: Extent[] = [];
      const given: Extent[] = [];
      let at = 0;
      for (const { gap, length, take } of steps) {
        batches.add(at + gap, at + gap + length);
        if (length > 0) added.push({ offset: at + gap, length });
        at += gap + length;
        if (take) given.push(...batches.take());
      }
      given.push(...batches.finish());
      assert.deepEqual(given, [...merged(added)]);
    }),
  );
});

test('refuses to go back', () => {
  const batches = new ExtentBatches();
  batches.add(10, 20);
  assert.throws(() => batches.add(19, 30), RangeError);
});
