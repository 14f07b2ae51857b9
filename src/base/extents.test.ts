import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { clipped, complement, merged, pieces, totalLength } from './extents.ts';

const size = 300;
const sorted = fc
  .array(fc.tuple(fc.nat({ max: size - 1 }), fc.nat({ max: 40 })), { maxLength: 20 })
  .map((pairs) =>
    pairs
      .map(([offset, length]) => ({ offset, length: Math.min(length, size - offset) }))
      .sort((a, b) => a.offset - b.offset),
  );

function bytesOf(extents: Iterable<{ offset: number; length: number }>): Set<number> {
  const bytes = new Set<number>();
  for (const { offset, length } of extents) for (let i = 0; i < length; i++) bytes.add(offset + i);
  return bytes;
}

test('merging keeps the bytes, and no two results touch', () => {
  fc.assert(
    fc.property(sorted, (extents) => {
      const result = [...merged(extents)];
      assert.deepEqual(bytesOf(result), bytesOf(extents));
      for (let i = 1; i < result.length; i++)
        assert.ok(result[i]!.offset > result[i - 1]!.offset + result[i - 1]!.length);
    }),
  );
});

test('extents and their complement together cover the whole range', () => {
  fc.assert(
    fc.property(sorted, (extents) => {
      const rest = bytesOf(complement(merged(extents), size));
      const used = bytesOf(extents);
      assert.equal(rest.size + used.size, size);
      for (const byte of rest) assert.ok(!used.has(byte));
    }),
  );
});

test('pieces are not longer than requested, and no byte is lost', () => {
  fc.assert(
    fc.property(sorted, fc.integer({ min: 1, max: 50 }), (extents, max) => {
      const cut = [...pieces(merged(extents), max)];
      assert.ok(cut.every(({ length }) => length > 0 && length <= max));
      assert.deepEqual(bytesOf(cut), bytesOf(extents));
    }),
  );
});

test('clipping keeps the bytes inside the window', () => {
  assert.deepEqual(
    [
      ...clipped(
        [
          { offset: 0, length: 10 },
          { offset: 20, length: 10 },
        ],
        5,
        25,
      ),
    ],
    [
      { offset: 5, length: 5 },
      { offset: 20, length: 5 },
    ],
  );
  assert.equal(
    totalLength([
      { offset: 5, length: 5 },
      { offset: 20, length: 7 },
    ]),
    12,
  );
});

test('unsorted extents are refused', () => {
  assert.throws(
    () => [
      ...merged([
        { offset: 5, length: 1 },
        { offset: 2, length: 1 },
      ]),
    ],
    /2 comes after 5/,
  );
});
