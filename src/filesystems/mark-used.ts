/**
 * Marks what a device uses in a bitmap: the one function that the backup engine needs of this room. A map that
 * turns out unreadable while it is walked makes everything used, with the reason as a warning.
 */
import type { Bitmap } from '../base/bitmap.ts';
import type { ReadAt } from '../block/source.ts';
import { type ReadUsedMapOptions, readUsedMap } from './read-used-map.ts';
import type { FilesystemIdentity } from './used-map.ts';
import { unreadableReason } from './verify.ts';

export interface MarkedMap {
  /** Undefined for a partitioned disk and for what is unknown. */
  readonly filesystem: FilesystemIdentity | undefined;
  readonly everything: boolean;
  readonly warnings: readonly string[];
  /** Sum of the exact extents in bytes, not of the bitmap's units. */
  readonly usedBytes: number;
}

/** `bitmap` must describe `deviceSize` bytes; bits already set stay set. Throws as `readUsedMap` does. */
export async function markUsed(
  bitmap: Bitmap,
  readAt: ReadAt,
  deviceSize: number,
  sectorSize: number,
  options: ReadUsedMapOptions = {},
): Promise<MarkedMap> {
  if (bitmap.size !== deviceSize)
    throw new RangeError(`a bitmap of ${bitmap.size} bytes for a device of ${deviceSize}`);
  const map = await readUsedMap(readAt, deviceSize, sectorSize, options);
  const { filesystem, everything, warnings } = map;
  let usedBytes = 0;
  try {
    for await (const extents of map.extents)
      for (const { offset, length } of extents) {
        bitmap.mark(offset, length);
        usedBytes += length;
      }
  } catch (error) {
    const reason = unreadableReason(error);
    bitmap.fill(true);
    return { filesystem, everything: true, warnings: [...warnings, reason], usedBytes: deviceSize };
  }
  return { filesystem, everything, warnings, usedBytes };
}
