import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cutAt, inward } from './pieces.ts';

test('pieces cover the range, are small enough, and are split at multiples', () => {
  fc.assert(
    fc.property(fc.nat(10_000), fc.nat(10_000), fc.integer({ min: 1, max: 3000 }), (offset, length, max) => {
      let at = offset;
      for (const piece of cutAt(offset, length, max)) {
        assert.equal(piece.offset, at);
        assert.ok(piece.length > 0 && piece.length <= max);
        at += piece.length;
        if (at !== offset + length) assert.equal(at % max, 0);
      }
      assert.equal(at, offset + length);
    }),
  );
});

test('inward never leaves the range', () => {
  fc.assert(
    fc.property(fc.nat(5000), fc.nat(5000), fc.constantFrom(1, 512, 4096), (offset, length, alignment) => {
      const range = inward(offset, length, alignment);
      if (range.length === 0) return;
      assert.ok(range.offset >= offset && range.offset + range.length <= offset + length);
      assert.equal(range.offset % alignment, 0);
      assert.equal(range.length % alignment, 0);
    }),
  );
});
