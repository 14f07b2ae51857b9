/**
 * Marks the used blocks of a device in a bitmap. If a map turns out unreadable while it is walked, everything is used,
 * with the reason as a warning.
 */
import type { Bitmap } from '../base/bitmap.ts';
import type { ReadAt } from '../block/source.ts';
import { type ReadUsedMapOptions, readUsedMap } from './read-used-map.ts';
import type { FilesystemIdentity, UsedMap } from './used-map.ts';
import { unreadableReason } from './verified-used-map.ts';

export interface MarkedMap {
  /** Undefined for a partitioned disk and for unknown contents. */
  readonly filesystem: FilesystemIdentity | undefined;
  readonly everything: boolean;
  readonly warnings: readonly string[];
  /** Sum of the exact extents in bytes, not of the bitmap's units. */
  readonly usedBytes: number;
}

/**
 * Marks the used blocks in `bitmap`, which must describe `deviceSize` bytes. Bits already set stay set. Throws as
 * `readUsedMap` does.
 */
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
  try {
    return { filesystem, everything, warnings, usedBytes: await markExtents(bitmap, map.extents) };
  } catch (error) {
    return everythingMarked(bitmap, map, unreadableReason(error));
  }
}

/** Marks the extents. Returns their bytes. */
export async function markExtents(bitmap: Bitmap, batches: UsedMap['extents']): Promise<number> {
  let usedBytes = 0;
  for await (const extents of batches)
    for (const { offset, length } of extents) {
      bitmap.mark(offset, length);
      usedBytes += length;
    }
  return usedBytes;
}

/** Marks everything, for a map that turned out unreadable while it was walked. */
export function everythingMarked(
  bitmap: Bitmap,
  { filesystem, warnings }: Pick<UsedMap, 'filesystem' | 'warnings'>,
  reason: string,
): MarkedMap {
  bitmap.fill(true);
  return { filesystem, everything: true, warnings: [...warnings, reason], usedBytes: bitmap.size };
}
