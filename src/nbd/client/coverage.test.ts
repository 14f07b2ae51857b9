import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Coverage } from './coverage.ts';

test('a byte can be claimed only once, for any order of claims', () => {
  const claim = fc.record({ start: fc.nat(60), length: fc.integer({ min: 1, max: 12 }) });
  fc.assert(
    fc.property(fc.array(claim, { maxLength: 40 }), (claims) => {
      const coverage = new Coverage();
      const taken = new Set<number>();
      for (const { start, length } of claims) {
        const bytes = Array.from({ length }, (_, i) => start + i);
        const free = bytes.every((byte) => !taken.has(byte));
        assert.equal(coverage.claim(start, length), free);
        if (free) for (const byte of bytes) taken.add(byte);
        assert.equal(coverage.covered, taken.size);
      }
      coverage.reset();
      assert.equal(coverage.claim(0, 100), true);
    }),
  );
});
