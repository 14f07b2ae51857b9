/**
 * Finds an ext filesystem's own metadata: copies of the superblock and of the descriptor table, bitmaps and inode
 * tables of every group. The result has two uses. It gives the used blocks of a group whose bitmap is not on disk
 * (BLOCK_UNINIT). And a map in which any metadata is free was read in the wrong place.
 *
 * Metadata is adjacent, with flex_bg that of many groups, so it is kept as few ranges. The ranges may not overlap,
 * which limits the cost of a forged filesystem.
 */
import type { ReadAt } from '../../block/source.ts';
import { type GroupDescriptor, readDescriptors } from './descriptors.ts';
import { incompat } from './features.ts';
import { type BlockRange, fixedMetadata, groupOf, groupRange } from './layout.ts';
import type { ExtSuperblock } from './superblock.ts';

/** Groups whose descriptors are read at once: one read if the table is in one piece. */
const window = 4096;

/** The most ranges, 16 bytes each. 16 TiB without flex_bg have half a million. */
const mostRanges = 2 ** 22;

/** Sorted and disjoint ranges of blocks. */
export class MetadataMap {
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;

  /** Both are sorted: if ranges are disjoint, the n-th start belongs to the n-th end. */
  constructor(starts: Float64Array, ends: Float64Array) {
    this.#starts = starts;
    this.#ends = ends;
  }

  /** Returns the ranges in `[start, end)`, clipped to it. */
  within(start: number, end: number): BlockRange[] {
    let low = 0;
    for (let high = this.#ends.length; low < high;) {
      const middle = (low + high) >>> 1;
      if (this.#ends[middle]! <= start) low = middle + 1;
      else high = middle;
    }
    const found: BlockRange[] = [];
    for (let i = low; i < this.#starts.length && this.#starts[i]! < end; i++)
      found.push({ start: Math.max(start, this.#starts[i]!), end: Math.min(end, this.#ends[i]!) });
    return found;
  }
}

/** The result of reading all descriptors. */
export interface Survey {
  /** The first fault in a descriptor. In a running filesystem a descriptor may be changing. */
  readonly descriptorProblem: string | undefined;
  /** Undefined if the places of the metadata are impossible for an ext filesystem: then `layoutProblem` says why. */
  readonly metadata: MetadataMap | undefined;
  readonly layoutProblem: string | undefined;
}

/** Reads all descriptors, and gives each to `found`. Throws FILESYSTEM_UNREADABLE and the errors of `readAt`. */
export async function surveyDescriptors(
  sb: ExtSuperblock,
  readAt: ReadAt,
  signal: AbortSignal | undefined,
  found?: (descriptor: GroupDescriptor) => void,
): Promise<Survey> {
  let descriptorProblem: string | undefined;
  let layoutProblem: string | undefined;
  // Separate lists: with flex_bg the bitmaps of many groups are adjacent.
  const pieces = { blockBitmap: new Pieces(), inodeBitmap: new Pieces(), inodeTable: new Pieces() };
  const copies = new Pieces();
  for (let first = 0; first < sb.groups && layoutProblem === undefined; first += window) {
    signal?.throwIfAborted();
    const count = Math.min(window, sb.groups - first);
    for (const descriptor of await readDescriptors(sb, readAt, first, count)) {
      found?.(descriptor);
      const { group, blockBitmap, inodeBitmap, inodeTable, problem } = descriptor;
      const fixed = fixedMetadata(sb, group);
      if (fixed.end > fixed.start) copies.add(fixed.start, fixed.end);
      descriptorProblem ??= problem;
      if (problem !== undefined) continue;
      layoutProblem ??= placeProblem(sb, descriptor);
      pieces.blockBitmap.add(blockBitmap, blockBitmap + 1);
      pieces.inodeBitmap.add(inodeBitmap, inodeBitmap + 1);
      pieces.inodeTable.add(inodeTable, inodeTable + sb.inodeTableBlocks);
    }
    const all = [copies, ...Object.values(pieces)].reduce((sum, { count: ranges }) => sum + ranges, 0);
    if (all > mostRanges)
      layoutProblem ??= `its metadata lies in more than ${mostRanges} places, in ${first + count} groups`;
  }
  if (layoutProblem !== undefined) return { descriptorProblem, metadata: undefined, layoutProblem };
  const map = joined([copies, ...Object.values(pieces)]);
  return typeof map === 'string'
    ? { descriptorProblem, metadata: undefined, layoutProblem: map }
    : { descriptorProblem, metadata: map, layoutProblem: undefined };
}

/** Ranges in the order in which they were added. A range that touches the one before is joined to it. */
class Pieces {
  readonly starts: number[] = [];
  readonly ends: number[] = [];

  get count(): number {
    return this.starts.length;
  }

  add(start: number, end: number): void {
    const last = this.ends.length - 1;
    if (this.ends[last] === start) {
      this.ends[last] = end;
      return;
    }
    this.starts.push(start);
    this.ends.push(end);
  }
}

/** Returns a fault if, without flex_bg, a group's metadata is outside the group. */
function placeProblem(sb: ExtSuperblock, descriptor: GroupDescriptor): string | undefined {
  if (sb.features.incompat & incompat.flex_bg) return undefined;
  const { group, blockBitmap, inodeBitmap, inodeTable } = descriptor;
  const places = [blockBitmap, inodeBitmap, inodeTable, inodeTable + sb.inodeTableBlocks - 1];
  const stray = places.find((block) => groupOf(sb, block) !== group);
  return stray === undefined
    ? undefined
    : `group ${group}: metadata at block ${stray}, which is in group ${groupOf(sb, stray)}, without flex_bg`;
}

function joined(all: readonly Pieces[]): MetadataMap | string {
  const starts = Float64Array.from(all.flatMap((pieces) => pieces.starts)).sort();
  const ends = Float64Array.from(all.flatMap((pieces) => pieces.ends)).sort();
  for (let i = 1; i < starts.length; i++)
    if (starts[i]! < ends[i - 1]!)
      return `metadata that begins at block ${starts[i]} lies over other metadata, which ends at ${ends[i - 1]}`;
  return new MetadataMap(starts, ends);
}

/** Returns the used blocks of a group without a bitmap, sorted and disjoint, extended to whole clusters. */
export function uninitialisedRanges(
  sb: ExtSuperblock,
  groupNumber: number,
  metadata: MetadataMap,
): BlockRange[] {
  const group = groupRange(sb, groupNumber);
  const ranges = [fixedMetadata(sb, groupNumber, true), ...metadata.within(group.start, group.end)]
    .map(({ start, end }) => ({
      start: Math.max(group.start, alignTo(Math.floor, start, group.start, sb.clusterBlocks)),
      end: Math.min(group.end, alignTo(Math.ceil, end, group.start, sb.clusterBlocks)),
    }))
    .filter(({ start, end }) => start < end)
    .sort((a, b) => a.start - b.start);
  const merged: BlockRange[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && range.start <= last.end)
      merged[merged.length - 1] = { start: last.start, end: Math.max(last.end, range.end) };
    else merged.push(range);
  }
  return merged;
}

function alignTo(round: (value: number) => number, block: number, origin: number, unit: number): number {
  return origin + round((block - origin) / unit) * unit;
}

/**
 * Returns the first metadata of the group that `runs` do not cover; undefined if they cover all of it. `runs` are pairs
 * of first cluster and cluster after the last, in order, within the group.
 */
export function freeMetadata(
  sb: ExtSuperblock,
  groupNumber: number,
  metadata: MetadataMap,
  runs: readonly number[],
): BlockRange | undefined {
  const { start, end } = groupRange(sb, groupNumber);
  let run = 0;
  for (const range of metadata.within(start, end)) {
    const from = Math.floor((range.start - start) / sb.clusterBlocks);
    const to = Math.ceil((range.end - start) / sb.clusterBlocks);
    while (run < runs.length && runs[run + 1]! < to) run += 2;
    if (run >= runs.length || runs[run]! > from) return range;
  }
  return undefined;
}
