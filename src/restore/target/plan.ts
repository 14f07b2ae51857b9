/**
 * Plans which ranges a restore copies and which it zeroes. Ranges that are absent from an image read as zeros. They were
 * either in use and zero, or not in use; the image does not tell which. If zeros are cheap, all absent ranges are zeroed. If
 * zeros must be written (a hard disk), the filesystem in the image shows which ranges are in use. The others are left
 * unchanged, except in the first and last MiB: old signatures there would mislead tools.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { MiB } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';
import type { Job } from './thread-messages.ts';

/** The most bytes of a job: large enough to join reads of the vault, small enough that a cancelled restore ends soon. */
export const longestJob = 8 * MiB;
/** The most bytes of a job that zeroes quickly. */
const longestZeroing = 1024 * MiB;
export const edgeBytes = MiB;

export type PlannedJob = Extract<Job, { do: 'copy' | 'zero' }>;

export interface PlanOptions {
  /** Bytes of the image, and of the destination, which is at least as large. */
  readonly size: number;
  readonly destinationSize: number;
  /**
   * The absent ranges to zero. `none`: no range, since the destination is a new file. `quick`: all. A bitmap of the image:
   * those that it marks as in use.
   */
  readonly zeros: 'none' | 'quick' | Bitmap;
  readonly salvage: boolean;
  /** Returns whether the next job compares with the destination first. */
  readonly compare: () => boolean;
}

/** Returns the jobs in order of their offsets. `data`: the ranges of the image with data, in order. */
export async function* planRestore(
  data: AsyncIterable<Extent>,
  options: PlanOptions,
): AsyncGenerator<PlannedJob> {
  const { size, destinationSize, salvage, compare } = options;
  let at = 0;
  for await (const { offset, length } of data) {
    yield* absent(at, offset, options);
    for (const piece of cut(offset, offset + length, longestJob))
      yield { do: 'copy', ...piece, compare: compare(), salvage };
    at = offset + length;
  }
  yield* absent(at, size, options);
  if (options.zeros === 'none' || destinationSize === size) return;
  // After the end of the image, only old signatures at the end of the destination matter.
  for (const piece of cut(Math.max(size, destinationSize - edgeBytes), destinationSize, longestJob))
    yield { do: 'zero', ...piece, must: true };
}

function* absent(from: number, to: number, { zeros, size }: PlanOptions): Generator<PlannedJob> {
  if (zeros === 'none' || from >= to) return;
  if (zeros === 'quick') {
    for (const piece of cut(from, to, longestZeroing)) yield { do: 'zero', ...piece, must: true };
    return;
  }
  let last = from;
  const inUse = function* (): Generator<Extent> {
    for (const edge of clip(from, to, 0, edgeBytes)) yield edge;
    for (const extent of zeros.extents(from, to))
      yield* clip(from, to, extent.offset, extent.offset + extent.length);
    for (const edge of clip(from, to, size - edgeBytes, size)) yield edge;
  };
  for (const { offset, length } of inUse()) {
    const start = Math.max(last, offset);
    if (start > last) yield { do: 'zero', offset: last, length: start - last, must: false };
    for (const piece of cut(start, Math.max(start, offset + length), longestJob))
      yield { do: 'zero', ...piece, must: true };
    last = Math.max(last, offset + length);
  }
  if (last < to) yield { do: 'zero', offset: last, length: to - last, must: false };
}

function* clip(from: number, to: number, start: number, end: number): Generator<Extent> {
  const offset = Math.max(from, start);
  const length = Math.min(to, end) - offset;
  if (length > 0) yield { offset, length };
}

/** Returns the range in pieces, split at multiples of `most`. */
function* cut(from: number, to: number, most: number): Generator<Extent> {
  for (let at = from; at < to;) {
    const end = Math.min(to, at - (at % most) + most);
    yield { offset: at, length: end - at };
    at = end;
  }
}
