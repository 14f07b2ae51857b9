/**
 * Which thread reads what for the spool. Each stripe of the device belongs to one thread in all rounds, so that one thread
 * has all blocks of whatever a target takes at once.
 */
import { KiB } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';
import { requestSize } from './target-writer.ts';

/** Bytes between two blocks that are cheaper to read than another read is. */
export const gap = 64 * KiB;

/** One of the threads that take part in a run: its index among them, and how many they are. */
export interface Share {
  readonly thread: number;
  readonly threads: number;
}

/**
 * The reads of one thread: ranges that hold all parts of `extents` (sorted) that lie in its stripes. No range crosses a
 * stripe's end, so none is longer than a request.
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
