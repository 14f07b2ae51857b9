/**
 * Reads the regions of a device that hold signatures. The first half mebibyte and the end are each read once, and other
 * places on demand.
 */
import { KiB } from '../../base/bytes.ts';
import type { ReadAt } from '../../block/source.ts';

/** Bytes from the start. ZFS has its first two labels there, and external XFS logs are searched up to there. */
export const headLength = 512 * KiB;
/** Bytes at the end: the signature of Promise's RAID may be 3087 sectors before the end. */
const tailLength = 3087 * 512 + 64 * KiB;

export interface Regions {
  /** Bytes. */
  readonly size: number;
  /** The first `headLength` bytes, or the whole device if it is smaller. */
  readonly head: Buffer;
  /** Reads `length` bytes at `offset`; undefined if they are not on the device. */
  readonly at: (offset: number, length: number) => Promise<Buffer | undefined>;
}

/** Throws the errors of `readAt`. */
export async function readRegions(readAt: ReadAt, size: number): Promise<Regions> {
  const head = Buffer.from(await readAt(0, Math.min(headLength, size)));
  const tailStart = Math.max(0, size - tailLength);
  const tail =
    tailStart === 0 && size <= headLength ? head : Buffer.from(await readAt(tailStart, size - tailStart));
  return {
    size,
    head,
    at: async (offset, length) => {
      if (offset < 0 || offset + length > size) return undefined;
      if (offset + length <= head.length) return head.subarray(offset, offset + length);
      if (offset >= tailStart) return tail.subarray(offset - tailStart, offset - tailStart + length);
      return Buffer.from(await readAt(offset, length));
    },
  };
}

/** The place of a signature: bytes from the start, or before the end of the device rounded down to `unit` bytes. */
export type Place = number | { readonly beforeEnd: number; readonly unit?: number };

/** Returns the place in bytes from the start; negative if the device is too small. */
export function placeOn(size: number, place: Place): number {
  if (typeof place === 'number') return place;
  return size - (size % (place.unit ?? 512)) - place.beforeEnd;
}
