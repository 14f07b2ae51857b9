/**
 * Splits a set of units into segments: the work between two flushes. A segment has a limited number of items (memory)
 * and of bytes (time to the next flush).
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { MiB } from '../../base/bytes.ts';
import { type Extent, pieces } from '../../base/extents.ts';
import { wholeUnits } from '../../tracking/bitmap-units.ts';

/** Bytes of one item, which one thread takes at a time. Small enough to share work, large enough to be rare. */
export const itemSize = 4 * MiB;

/** Items per segment: 1 MiB of shared memory. */
export const maximumItems = 65536;

/** Walks the units of the set bits once, one segment at a time. */
export class SegmentCursor {
  readonly #items: Iterator<Extent>;

  constructor(set: Bitmap) {
    this.#items = pieces(wholeUnits(set), itemSize);
  }

  /**
   * Fills `into` (pairs of offset and length) with the next items, about `bytes` in all. Returns how many items and
   * bytes there are. No items: the set is done.
   */
  next(into: Float64Array, bytes: number): { count: number; bytes: number } {
    let count = 0;
    let total = 0;
    while (count < maximumItems && total < bytes) {
      const item = this.#take();
      if (item === undefined) break;
      into[count * 2] = item.offset;
      into[count * 2 + 1] = item.length;
      count++;
      total += item.length;
    }
    return { count, bytes: total };
  }

  #take(): Extent | undefined {
    const result = this.#items.next();
    return result.done === true ? undefined : result.value;
  }
}

/**
 * Returns up to `count` items spread evenly over the set, for measuring. Walks the whole set, but holds only `count`
 * items.
 */
export function spread(set: Bitmap, count: number): Extent[] {
  const step = Math.max(1, set.bytes() / count);
  const chosen: Extent[] = [];
  let at = 0;
  for (const extent of pieces(wholeUnits(set), itemSize)) {
    if (at >= chosen.length * step && chosen.length < count) chosen.push(extent);
    at += extent.length;
  }
  return chosen;
}
