/**
 * Decides which thread reads which blocks for the spool. Each stripe of the device belongs to one thread in all rounds.
 * So one thread has all blocks that the target takes at once.
 */
import { KiB } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';
import { requestSize } from './target-writer.ts';

/** If two blocks are no further apart than these bytes, reading the gap is cheaper than another read. */
export const gap = 64 * KiB;

/** One of the threads that take part in a run: its index among them, and their number. */
export interface Share {
  readonly thread: number;
  readonly threads: number;
}

/**
 * Returns the reads of one thread: ranges that cover all parts of `extents` (sorted) in its stripes. No range crosses
 * the end of a stripe, so none is longer than a request.
 */
export function* ownReads(extents: Iterable<Extent>, { thread, threads }: Share): Generator<Extent> {
  let start = 0;
  let end = 0;
  for (const extent of extents) {
    const last = extent.offset + extent.length;
    for (let at = extent.offset; at < last;) {
      const stripe = Math.floor(at / requestSize);
      const to = Math.min(last, (stripe + 1) * requestSize);
      if (stripe % threads === thread) {
        const joins = end > start && at - end <= gap && Math.floor(start / requestSize) === stripe;
        if (!joins) {
          if (end > start) yield { offset: start, length: end - start };
          start = at;
        }
        end = to;
      }
      at = to;
    }
  }
  if (end > start) yield { offset: start, length: end - start };
}
