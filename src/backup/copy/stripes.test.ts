import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { KiB, MiB } from '../../base/bytes.ts';
import { requestSize } from './target-writer.ts';
import { gap, ownReads } from './stripes.ts';

test('the threads together read all set blocks, each in its own stripes, without blocks far from them', () => {
  const size = 8 * MiB - 512;
  fc.assert(
    fc.property(
      fc.array(fc.nat({ max: 2047 }), { maxLength: 200 }),
      fc.integer({ min: 1, max: 4 }),
      (blocks, threads) => {
        const set = new Bitmap(size, 4 * KiB);
        for (const block of blocks) set.mark(block * 4 * KiB, 4 * KiB);
        const read = new Bitmap(size, 4 * KiB);
        for (let thread = 0; thread < threads; thread++)
          for (const { offset, length } of ownReads(set.extents(), { thread, threads })) {
            const stripe = Math.floor(offset / requestSize);
            assert.equal(stripe % threads, thread);
            assert.equal(Math.floor((offset + length - 1) / requestSize), stripe);
            assert.ok(offset + length <= size);
            assert.equal([...read.extents(offset, offset + length)].length, 0, 'read twice');
            read.mark(offset, length);
          }
        const missed = set.clone();
        missed.andNot(read);
        assert.ok(missed.isEmpty());
        assert.ok(read.bytes() <= set.bytes() + [...set.extents()].length * gap);
      },
    ),
  );
});
