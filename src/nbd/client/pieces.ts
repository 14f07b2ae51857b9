/** Splits large ranges into small requests, and runs a few of them at a time. */
import { alignDown, alignUp } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';

/** Splits the range at multiples of `max` into pieces of at most `max` bytes. */
export function* cutAt(offset: number, length: number, max: number): Generator<Extent> {
  const end = offset + length;
  for (let at = offset; at < end;) {
    const next = Math.min(alignDown(at, max) + max, end);
    yield { offset: at, length: next - at };
    at = next;
  }
}

/** Returns the largest aligned range within the range; its length may be 0. */
export function inward(offset: number, length: number, alignment: number): Extent {
  const start = alignUp(offset, alignment);
  return { offset: start, length: Math.max(0, alignDown(offset + length, alignment) - start) };
}

/**
 * Runs `work` for every item, at most `width` at once. After a failure, starts no further work, waits for the work in
 * progress, and rejects with the first failure.
 */
export async function each<Item>(
  items: Iterable<Item>,
  width: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]();
  let failed = false;
  const run = async (): Promise<void> => {
    for (let next = iterator.next(); next.done !== true && !failed; next = iterator.next()) {
      try {
        await work(next.value);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: width }, run));
  const failure = results.find((result) => result.status === 'rejected');
  if (failure !== undefined) throw failure.reason;
}
