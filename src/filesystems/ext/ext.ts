/**
 * ext2, ext3 and ext4: probe and used map. Format, and when everything counts as used: docs/formats/ext.md.
 *
 * Before the map is given out, the superblock and all descriptors have been checked. The bitmaps are checked
 * while the map is walked, a window of groups at a time, so that memory does not grow with the filesystem; a
 * bitmap that fails ends the walk with FILESYSTEM_UNREADABLE.
 */
import { MiB } from '../../base/bytes.ts';
import { crc32c } from '../../base/crc32c.ts';
import { AgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import type { ReadAt } from '../../block/source.ts';
import { ExtentBatches } from '../extent-batches.ts';
import {
  type FilesystemIdentity,
  type MountState,
  type UsedMap,
  type UsedMapReader,
  everythingUsed,
} from '../used-map.ts';
import { backupProblem } from './backup-superblock.ts';
import { usedRuns } from './bitmap-runs.ts';
import { readBitmaps } from './bitmaps.ts';
import { type GroupDescriptor, bitmapChecksumMask, readDescriptors } from './descriptors.ts';
import { groupRange } from './layout.ts';
import { type MetadataMap, freeMetadata, surveyDescriptors, uninitialisedRanges } from './metadata.ts';
import {
  type ExtSuperblock,
  hex,
  parseSuperblock,
  superblockLength,
  superblockOffset,
  superblockProblem,
} from './superblock.ts';

/** The identity, or undefined where this is not ext or, as with blkid, the superblock fails its checksum. */
export async function probeExt(readAt: ReadAt, deviceSize: number): Promise<FilesystemIdentity | undefined> {
  const sb = await readSuperblock(readAt, deviceSize);
  return sb?.storedChecksum === sb?.computedChecksum ? sb && identityOn(sb, deviceSize) : undefined;
}

/** The type where the magic number of ext is there, whatever state the rest is in. */
export async function readExtType(readAt: ReadAt, deviceSize: number): Promise<string | undefined> {
  return (await readSuperblock(readAt, deviceSize))?.identity.type;
}

function identityOn({ identity }: ExtSuperblock, deviceSize: number): FilesystemIdentity {
  return { ...identity, size: Math.min(identity.size ?? 0, deviceSize) };
}

async function readSuperblock(readAt: ReadAt, deviceSize: number): Promise<ExtSuperblock | undefined> {
  if (deviceSize < superblockOffset + superblockLength) return undefined;
  let sb = parseSuperblock(await readAt(superblockOffset, superblockLength));
  // A mounted filesystem may be writing it just now.
  for (let retry = 0; retry < 3 && sb && sb.storedChecksum !== sb.computedChecksum; retry++)
    sb = parseSuperblock(await readAt(superblockOffset, superblockLength));
  return sb;
}

export const readExtUsedMap: UsedMapReader = async (readAt, deviceSize, options = {}): Promise<UsedMap> => {
  const { state = 'idle', signal } = options;
  const sb = await readSuperblock(readAt, deviceSize);
  if (sb === undefined) return everythingUsed(deviceSize, 'ext: no superblock at byte 1024');
  const trusted = sb.storedChecksum === sb.computedChecksum;
  const identity = identityOn(sb, deviceSize);
  const givenUp = (reason: string): UsedMap =>
    everythingUsed(deviceSize, `${identity.type}: ${reason}`, trusted ? identity : undefined);

  const problem = superblockProblem(sb, deviceSize, state);
  if (problem !== undefined) return givenUp(problem);
  let metadata: MetadataMap;
  try {
    const doubt = await backupProblem(sb, readAt);
    if (doubt !== undefined) return givenUp(doubt);
    const survey = await surveyDescriptors(sb, readAt, signal);
    if (survey.metadata === undefined) return givenUp(survey.layoutProblem ?? 'its metadata is out of place');
    if (survey.descriptorProblem !== undefined && state !== 'live') return givenUp(survey.descriptorProblem);
    ({ metadata } = survey);
  } catch (error) {
    return givenUp(`group descriptors: ${unreadable(error).message}`);
  }

  return {
    filesystem: identity,
    everything: false,
    warnings:
      sb.externalJournal === undefined
        ? []
        : [
            `${identity.type}: its journal (${sb.externalJournal}) is on another device and is not copied with it`,
          ],
    extents: walk({ sb, readAt, deviceSize, state, signal, metadata }),
  };
};

interface Walk {
  readonly sb: ExtSuperblock;
  readonly readAt: ReadAt;
  readonly deviceSize: number;
  readonly state: MountState;
  readonly signal: AbortSignal | undefined;
  readonly metadata: MetadataMap;
}

/** Groups of one window, with the bitmaps of those that have one. */
interface Window {
  readonly descriptors: readonly GroupDescriptor[];
  readonly bitmaps: ReadonlyMap<number, Uint8Array>;
}

/** Bytes of bitmaps in one window; two windows are in memory at once. */
const windowBytes = MiB;

/** Extents in a batch: a bitmap with every other bit set has 16,384 in 4 KiB. */
const batchLength = 4096;

async function* walk(job: Walk): AsyncGenerator<readonly Extent[]> {
  const { sb } = job;
  const groupsAtOnce = Math.max(1, Math.floor(windowBytes / sb.blockSize));
  const batches = new ExtentBatches();
  batches.add(0, sb.firstDataBlock * sb.blockSize);

  let next = readAhead(job, 0, groupsAtOnce);
  for (let first = 0; first < sb.groups; first += groupsAtOnce) {
    job.signal?.throwIfAborted();
    const { descriptors, bitmaps } = await next;
    if (first + groupsAtOnce < sb.groups) next = readAhead(job, first + groupsAtOnce, groupsAtOnce);
    for (const descriptor of descriptors) {
      addGroup(job, descriptor, bitmaps, batches);
      if (batches.length >= batchLength) yield batches.take();
    }
  }

  batches.add(sb.blocks * sb.blockSize, job.deviceSize);
  const rest = batches.finish();
  if (rest.length > 0) yield rest;
}

/** Starts reading a window; its failure shows where it is awaited, or nowhere where nobody goes that far. */
function readAhead(job: Walk, first: number, groupsAtOnce: number): Promise<Window> {
  const reading = readWindow(job, first, Math.min(groupsAtOnce, job.sb.groups - first));
  reading.catch(() => undefined);
  return reading;
}

async function readWindow({ sb, readAt }: Walk, first: number, count: number): Promise<Window> {
  const groups = `groups ${first} to ${first + count - 1}`;
  try {
    const descriptors = await readDescriptors(sb, readAt, first, count);
    return { descriptors, bitmaps: await readBitmaps(sb, readAt, descriptors) };
  } catch (error) {
    const reason = unreadable(error);
    throw new AgentError('FILESYSTEM_UNREADABLE', `${sb.identity.type}: ${groups}: ${reason.message}`, {
      cause: reason,
    });
  }
}

function addGroup(
  { sb, state, metadata }: Walk,
  descriptor: GroupDescriptor,
  bitmaps: ReadonlyMap<number, Uint8Array>,
  batches: ExtentBatches,
): void {
  const { start, end } = groupRange(sb, descriptor.group);
  const { blockSize } = sb;
  const bitmap = bitmaps.get(descriptor.group);
  const runs: number[] = [];
  let problem = descriptor.problem;
  if (bitmap !== undefined)
    problem ??= bitmapRuns(sb, descriptor, bitmap, runs) ?? metadataProblem(sb, descriptor, metadata, runs);
  else problem ??= layoutRuns(sb, descriptor, metadata, runs);

  if (problem !== undefined) {
    if (state !== 'live') throw new AgentError('FILESYSTEM_UNREADABLE', `${sb.identity.type}: ${problem}`);
    batches.add(start * blockSize, end * blockSize);
    return;
  }
  for (let i = 0; i < runs.length; i += 2)
    batches.add(
      (start + runs[i]! * sb.clusterBlocks) * blockSize,
      Math.min(start + runs[i + 1]! * sb.clusterBlocks, end) * blockSize,
    );
}

/** As `bitmapRuns`, for a group whose bitmap is not on disk. */
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
  // What is used here follows from a superblock that may have no checksum. Fewer free ones do no harm.
  if (free > freeClusters)
    return `group ${group}: by the layout ${free} clusters are free, but the descriptor says ${freeClusters}`;
  return undefined;
}

/** Appends the used runs (first cluster, cluster after the last, …) to `runs`; returns what is wrong. */
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
  // The only check there is without metadata_csum; the kernel makes it too, and calls the bitmap corrupt.
  if (free !== freeClusters)
    return `group ${group}: the block bitmap has ${free} free clusters, but the descriptor says ${freeClusters}`;
  return undefined;
}

/** A filesystem whose own metadata is free in its map was read in the wrong place, or is damaged. */
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

/** Bad sectors make the map unreadable; everything else (cancelled, device gone, a defect) goes on as it is. */
function unreadable(error: unknown): AgentError {
  const codes: readonly string[] = ['DEVICE_READ_ERROR', 'FILESYSTEM_UNREADABLE'];
  if (error instanceof AgentError && codes.includes(error.code)) return error;
  throw error;
}
