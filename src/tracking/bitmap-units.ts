/** Bitmaps of one device in other units: coarser, finer, or rounded out. */
import { Bitmap } from '../base/bitmap.ts';
import { type Extent, alignedOut, complement, merged } from '../base/extents.ts';
import { fingerprintUnit } from './fingerprints.ts';

/** Returns the same map in another unit. A coarser bit is set if any of its finer bits is set. */
export function inUnit(bitmap: Bitmap, unit: number): Bitmap {
  if (bitmap.unit === unit) return bitmap;
  const result = new Bitmap(bitmap.size, unit);
  for (const { offset, length } of bitmap.extents()) result.mark(offset, length);
  return result;
}

/** Returns the fingerprint units that hold a set bit, as maximal extents. */
export function wholeUnits(set: Bitmap): Iterable<Extent> {
  return set.unit === fingerprintUnit
    ? set.extents()
    : merged(alignedOut(set.extents(), fingerprintUnit, set.size));
}

/** Returns the number of fingerprint units that hold a set bit. */
export function countWholeUnits(set: Bitmap): number {
  let count = 0;
  for (const { length } of wholeUnits(set)) count += Math.ceil(length / fingerprintUnit);
  return count;
}

/** Returns the set rounded out to blocks of `alignment` bytes, in its own unit. Returns the set itself if it is aligned. */
export function roundedOut(set: Bitmap, alignment: number): Bitmap {
  if (alignment <= set.unit) return set;
  const result = new Bitmap(set.size, set.unit);
  for (const { offset, length } of merged(alignedOut(set.extents(), alignment, set.size)))
    result.mark(offset, length);
  return result;
}

/** Marks every byte of the device outside the extents of `set`. */
export function markOutside(bitmap: Bitmap, set: Bitmap): void {
  for (const { offset, length } of complement(set.extents(), set.size)) bitmap.mark(offset, length);
}
