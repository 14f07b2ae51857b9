/**
 * Reads the block bitmaps of many groups with few requests. With flex_bg the bitmaps of a flex group are adjacent, so
 * bitmaps that are close together are read in one piece.
 */
import { MiB } from '../../base/bytes.ts';
import { inParallel } from '../../base/in-parallel.ts';
import type { ReadAt } from '../../block/source.ts';
import type { GroupDescriptor } from './descriptors.ts';
import type { ExtSuperblock } from './superblock.ts';

/** Bytes: the largest read, and the largest gap between two bitmaps that is read rather than skipped. */
const largestRead = MiB;
const largestGap = 64 * 1024;
/** The most reads at once: Node has four threads for files. */
const concurrency = 4;

/** Returns the bitmaps by group number. Groups without a bitmap on disk, or with a wrong descriptor, are left out. */
export async function readBitmaps(
  sb: ExtSuperblock,
  readAt: ReadAt,
  descriptors: readonly GroupDescriptor[],
): Promise<Map<number, Uint8Array>> {
  const wanted = descriptors.filter((one) => !one.uninitialised && one.problem === undefined);
  const runs = coalesce(
    wanted.map((one) => ({ group: one.group, offset: one.blockBitmap * sb.blockSize })),
    sb.blockSize,
  );
  const bitmaps = new Map<number, Uint8Array>();
  await inParallel(runs, concurrency, async (run) => {
    const bytes = await readAt(run.offset, run.length);
    for (const { group, offset } of run.places)
      bitmaps.set(group, bytes.subarray(offset - run.offset, offset - run.offset + sb.blockSize));
  });
  return bitmaps;
}

interface Place {
  readonly group: number;
  readonly offset: number;
}

interface Run {
  readonly offset: number;
  length: number;
  readonly places: Place[];
}

/** Joins places of `size` bytes to runs, in the order of their offsets. */
function coalesce(places: readonly Place[], size: number): Run[] {
  const runs: Run[] = [];
  for (const place of [...places].sort((a, b) => a.offset - b.offset)) {
    const run = runs.at(-1);
    const end = place.offset + size;
    if (run && place.offset <= run.offset + run.length + largestGap && end - run.offset <= largestRead) {
      run.length = Math.max(run.length, end - run.offset);
      run.places.push(place);
    } else {
      runs.push({ offset: place.offset, length: size, places: [place] });
    }
  }
  return runs;
}
