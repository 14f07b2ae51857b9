/** Splits large ranges into small requests. */
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
