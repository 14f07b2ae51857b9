/**
 * The used map of ext by its block groups. Memory does not grow with the filesystem: a window of groups is read at a
 * time, and each bitmap is checked when it is read. A bad bitmap ends the walk with FILESYSTEM_UNREADABLE. In a running
 * filesystem its group counts as used instead.
 */
import { MiB } from '../../base/bytes.ts';
import { crc32c } from '../../base/crc32c.ts';
import { AgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import { ExtentBatches } from '../extent-batches.ts';
import { type GroupOptions, type GroupReading, groupExtents } from '../group-reading.ts';
import type { EarlierMap, GroupPart, GroupedMap } from '../used-map.ts';
import { usedRuns } from './bitmap-runs.ts';
import { readBitmaps } from './bitmaps.ts';
import { type GroupDescriptor, bitmapChecksumMask, readDescriptors } from './descriptors.ts';
import type { KeptGroups } from './kept.ts';
import { groupRange } from './layout.ts';
import { type MetadataMap, freeMetadata, uninitialisedRanges } from './metadata.ts';
import { type ExtSuperblock, hex } from './superblock.ts';

export type ExtReading = GroupReading<ExtSuperblock>;

/** Bytes of bitmaps in one window; two windows are in memory at once. */
const windowBytes = MiB;

/** Extents in a batch. A bitmap with every other bit set has 16,384 in 4 KiB. */
const batchLength = 4096;

export class ExtGroups implements GroupedMap {
  readonly count: number;
  readonly stale: readonly number[] | undefined;
  readonly whyAll: string | undefined;
  readonly #reading: ExtReading;
  readonly #metadata: MetadataMap;
  readonly #kept: KeptGroups | undefined;

  constructor(reading: ExtReading, metadata: MetadataMap, options: GroupOptions<KeptGroups>) {
    this.count = reading.sb.groups;
    this.stale = options.stale;
    this.whyAll = options.whyAll;
    this.#reading = reading;
    this.#metadata = metadata;
    this.#kept = options.kept;
  }

  startOf(group: number): number {
    const { sb } = this.#reading;
    return group === 0 ? 0 : groupRange(sb, group).start * sb.blockSize;
  }

  /**
   * Returns the present map, in which only the groups that may have changed are stale; or why these groups cannot be
   * known.
   */
  async next(reading: ExtReading, isWritten: EarlierMap['isWritten']): Promise<ExtGroups | string> {
    if (this.#kept === undefined) return 'nothing was kept of it';
    const { sb, readAt, signal } = reading;
    const stale = await this.#kept.stale(sb, readAt, isWritten, signal);
    return typeof stale === 'string'
      ? stale
      : new ExtGroups(reading, this.#metadata, { kept: this.#kept, stale });
  }

  async *read(): AsyncGenerator<readonly GroupPart[]> {
    const { sb, signal } = this.#reading;
    const groupsAtOnce = Math.max(1, Math.floor(windowBytes / sb.blockSize));
    const count = this.stale?.length ?? this.count;
    let batch: GroupPart[] = [];
    let extents = 0;
    let next = this.#readAhead(0, groupsAtOnce);
    for (let first = 0; first < count; first += groupsAtOnce) {
      signal?.throwIfAborted();
      const { descriptors, bitmaps } = await next;
      if (first + groupsAtOnce < count) next = this.#readAhead(first + groupsAtOnce, groupsAtOnce);
      for (const descriptor of descriptors) {
        const part = this.#part(descriptor, bitmaps.get(descriptor.group));
        batch.push(part);
        extents += part.extents.length;
        if (extents < batchLength) continue;
        yield batch;
        batch = [];
        extents = 0;
      }
    }
    if (batch.length > 0) yield batch;
  }

  /** Yields all used extents, as `UsedMap.extents`. */
  extents(): AsyncGenerator<readonly Extent[]> {
    return groupExtents(this);
  }

  /**
   * Starts reading a window. An error is thrown when the window is awaited. If the caller stops before, the error is
   * ignored.
   */
  #readAhead(first: number, groupsAtOnce: number): Promise<Window> {
    const reading = this.#readWindow(first, groupsAtOnce);
    reading.catch(() => undefined);
    return reading;
  }

  /** `first` and `most` count in the list of groups to read. */
  async #readWindow(first: number, most: number): Promise<Window> {
    const { sb, readAt } = this.#reading;
    const stale = this.stale?.slice(first, first + most);
    const [from, to] =
      stale === undefined ? [first, Math.min(first + most, this.count) - 1] : [stale[0], stale.at(-1)];
    try {
      const descriptors =
        stale === undefined
          ? await readDescriptors(sb, readAt, first, to! + 1 - first)
          : stale.map((group) => this.#kept!.descriptor(group));
      return { descriptors, bitmaps: await readBitmaps(sb, readAt, descriptors) };
    } catch (error) {
      const reason = unreadable(error);
      const message = `${sb.identity.type}: groups ${from} to ${to}: ${reason.message}`;
      throw new AgentError('FILESYSTEM_UNREADABLE', message, { cause: reason });
    }
  }

  #part(descriptor: GroupDescriptor, bitmap: Uint8Array | undefined): GroupPart {
    const { sb, state, deviceSize } = this.#reading;
    const { group } = descriptor;
    const runs: number[] = [];
    const problem = this.#runs(descriptor, bitmap, runs);
    if (problem !== undefined && state !== 'live')
      throw new AgentError('FILESYSTEM_UNREADABLE', `${sb.identity.type}: ${problem}`);
    this.#kept?.note(descriptor, problem);

    const used = new ExtentBatches();
    const { start, end } = groupRange(sb, group);
    const { blockSize, clusterBlocks } = sb;
    if (group === 0) used.add(0, start * blockSize);
    if (problem !== undefined) used.add(start * blockSize, end * blockSize);
    else
      for (let i = 0; i < runs.length; i += 2)
        used.add(
          (start + runs[i]! * clusterBlocks) * blockSize,
          Math.min(start + runs[i + 1]! * clusterBlocks, end) * blockSize,
        );
    if (group === this.count - 1) used.add(end * blockSize, deviceSize);
    return { group, extents: used.finish(), last: true, inFlux: problem !== undefined };
  }

  /** Fills `runs` with the used clusters of the group (first, after the last, …). Returns the fault if there is one. */
  #runs(descriptor: GroupDescriptor, bitmap: Uint8Array | undefined, runs: number[]): string | undefined {
    const { sb } = this.#reading;
    if (descriptor.problem !== undefined) return descriptor.problem;
    if (bitmap === undefined) return layoutRuns(sb, descriptor, this.#metadata, runs);
    return bitmapRuns(sb, descriptor, bitmap, runs) ?? metadataProblem(sb, descriptor, this.#metadata, runs);
  }
}

/** The groups of one window, with the bitmaps of those that have one. */
interface Window {
  readonly descriptors: readonly GroupDescriptor[];
  readonly bitmaps: ReadonlyMap<number, Uint8Array>;
}

/** The same as `bitmapRuns`, for a group whose bitmap is not on disk. */
function layoutRuns(
  sb: ExtSuperblock,
  descriptor: GroupDescriptor,
  metadata: MetadataMap,
  runs: number[],
): string | undefined {
  const { group, freeClusters } = descriptor;
  const { start, end } = groupRange(sb, group);
  let free = Math.ceil((end - start) / sb.clusterBlocks);
  for (const range of uninitialisedRanges(sb, group, metadata)) {
    const from = (range.start - start) / sb.clusterBlocks;
    const to = Math.ceil((range.end - start) / sb.clusterBlocks);
    runs.push(from, to);
    free -= to - from;
  }
  // The used clusters follow from a superblock that may have no checksum. Too few free clusters do no harm.
  if (free > freeClusters)
    return `group ${group}: by the layout ${free} clusters are free, but the descriptor says ${freeClusters}`;
  return undefined;
}

/** Appends the used runs (first cluster, cluster after the last, …) to `runs`. Returns the fault if there is one. */
function bitmapRuns(
  sb: ExtSuperblock,
  { group, bitmapChecksum, freeClusters }: GroupDescriptor,
  bitmap: Uint8Array,
  runs: number[],
): string | undefined {
  if (sb.checksum === 'crc32c') {
    const covered = bitmap.subarray(0, sb.clustersPerGroup / 8);
    const computed = (~crc32c(covered, ~sb.checksumSeed >>> 0) & bitmapChecksumMask(sb)) >>> 0;
    if (computed !== bitmapChecksum)
      return `group ${group}: block bitmap checksum ${hex(computed)}, but ${hex(bitmapChecksum)} is stored`;
  }
  const { start, end } = groupRange(sb, group);
  const free = usedRuns(bitmap, Math.ceil((end - start) / sb.clusterBlocks), (from, to) =>
    runs.push(from, to),
  );
  // Without metadata_csum this is the only check. The kernel makes it too, and reports a corrupt bitmap.
  if (free !== freeClusters)
    return `group ${group}: the block bitmap has ${free} free clusters, but the descriptor says ${freeClusters}`;
  return undefined;
}

/**
 * Returns a fault if the filesystem's own metadata is free in its map. Then the map was read in the wrong place, or is
 * damaged.
 */
function metadataProblem(
  sb: ExtSuperblock,
  { group }: GroupDescriptor,
  metadata: MetadataMap,
  runs: readonly number[],
): string | undefined {
  const free = freeMetadata(sb, group, metadata, runs);
  if (free === undefined) return undefined;
  return `group ${group}: blocks ${free.start} to ${free.end - 1} are metadata, but the block bitmap has some of them free`;
}

/**
 * Returns the error if bad sectors made the map unreadable. Throws every other error again (cancelled, device gone, a
 * defect).
 */
export function unreadable(error: unknown): AgentError {
  const codes: readonly string[] = ['DEVICE_READ_ERROR', 'FILESYSTEM_UNREADABLE'];
  if (error instanceof AgentError && codes.includes(error.code)) return error;
  throw error;
}
