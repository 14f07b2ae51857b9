/**
 * Extents: byte ranges `{offset, length}`, and operations on sorted streams of them. All functions are lazy, so a
 * device of any size needs only constant memory.
 */

/** A byte range. Both numbers are whole, non-negative and below 2^53. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** Joins touching and overlapping extents of a stream that is sorted by offset. Drops empty extents. */
export function* merged(extents: Iterable<Extent>): Generator<Extent> {
  let offset = 0;
  let end = -1;
  for (const extent of extents) {
    if (extent.length === 0) continue;
    if (extent.offset < offset)
      throw new RangeError(`extents are not sorted: ${extent.offset} comes after ${offset}`);
    if (end >= 0 && extent.offset <= end) {
      end = Math.max(end, extent.offset + extent.length);
    } else {
      if (end >= 0) yield { offset, length: end - offset };
      offset = extent.offset;
      end = extent.offset + extent.length;
    }
  }
  if (end >= 0) yield { offset, length: end - offset };
}

/** The gaps of a sorted stream within `[0, size)`. */
export function* complement(extents: Iterable<Extent>, size: number): Generator<Extent> {
  let at = 0;
  for (const { offset, length } of extents) {
    if (offset > at) yield { offset: at, length: Math.min(offset, size) - at };
    at = Math.max(at, offset + length);
    if (at >= size) return;
  }
  if (at < size) yield { offset: at, length: size - at };
}

/** Splits each extent into pieces of at most `max` bytes. */
export function* pieces(extents: Iterable<Extent>, max: number): Generator<Extent> {
  for (const { offset, length } of extents)
    for (let done = 0; done < length; done += max)
      yield { offset: offset + done, length: Math.min(max, length - done) };
}

/** Each extent, enlarged to multiples of `alignment`, but not past `size`. The results may overlap: see `merged`. */
export function* alignedOut(extents: Iterable<Extent>, alignment: number, size: number): Generator<Extent> {
  for (const extent of extents) {
    const offset = extent.offset - (extent.offset % alignment);
    const end = Math.min(size, Math.ceil((extent.offset + extent.length) / alignment) * alignment);
    if (end > offset) yield { offset, length: end - offset };
  }
}

/** Each extent, shrunk to multiples of `alignment`. Extents that contain no aligned piece are dropped. */
export function* alignedIn(extents: Iterable<Extent>, alignment: number): Generator<Extent> {
  for (const extent of extents) {
    const offset = Math.ceil(extent.offset / alignment) * alignment;
    const end = extent.offset + extent.length;
    const length = end - (end % alignment) - offset;
    if (length > 0) yield { offset, length };
  }
}

/** The parts of the extents inside the window `[start, end)`. */
export function* clipped(extents: Iterable<Extent>, start: number, end: number): Generator<Extent> {
  for (const extent of extents) {
    const from = Math.max(extent.offset, start);
    const to = Math.min(extent.offset + extent.length, end);
    if (from < to) yield { offset: from, length: to - from };
  }
}

/** Sum of the lengths in bytes. */
export function totalLength(extents: Iterable<Extent>): number {
  let total = 0;
  for (const { length } of extents) total += length;
  return total;
}
