import assert from 'node:assert/strict';
import { test } from 'node:test';
import { alignedBuffer, isAligned } from './aligned.ts';

test('buffers begin at a multiple of the alignment and have the requested length', () => {
  for (const alignment of [512, 4096, 65536])
    for (const bytes of [1, 512, 4096, 300_000]) {
      const plain = alignedBuffer(bytes, alignment);
      assert.equal(plain.length, bytes);
      assert.ok(isAligned(plain, alignment));
    }
});

test('a view that begins one byte later is not aligned', () => {
  assert.equal(isAligned(alignedBuffer(8192).subarray(1), 512), false);
});
