/**
 * XFS: what it is (`probeXfs`) and which bytes it uses (`readXfsUsedMap`). Everything is used but the extents
 * in the free-space trees; docs/formats/xfs.md says what is read, what is trusted, and when nothing is.
 */
import { AgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import type { ReadAt } from '../../block/source.ts';
import { everythingUsed, type FilesystemIdentity, type MountState, type UsedMapReader } from '../used-map.ts';
import { type FreeSpaceRoot, parseAgf } from './allocation-group.ts';
import { type GroupRange, freeExtents, readMetadata } from './free-space-tree.ts';
import { logFault } from './log.ts';
import {
  copyFault,
  filesystemSize,
  firstBlockAfterHeaders,
  groupLength,
  hasChecksums,
  parseSuperblock,
  superblockFault,
  superblockSize,
  type XfsSuperblock,
} from './superblock.ts';

/** Undefined where `[0, deviceSize)` does not begin with a possible XFS superblock. Checks no checksum. */
export async function probeXfs(readAt: ReadAt, deviceSize: number): Promise<FilesystemIdentity | undefined> {
  const sb = await readSuperblock(readAt, deviceSize);
  return sb && identity(sb, deviceSize);
}

/**
 * The used map by the free-space trees. Blocks on the free list (AGFL) count as used. In state `live` an
 * allocation group that does not hang together counts as used as a whole; in the others the walk throws
 * FILESYSTEM_UNREADABLE.
 */
export const readXfsUsedMap: UsedMapReader = async (readAt, deviceSize, options = {}) => {
  const { signal, state = 'idle' } = options;
  let sb: XfsSuperblock | undefined;
  let fault: string | undefined;
  try {
    sb = await readSuperblock(readAt, deviceSize);
    if (sb === undefined) return everythingUsed(deviceSize, 'there is no XFS superblock that could be right');
    fault =
      superblockFault(sb, await readMetadata(readAt, 0, sb.sectorSize, 'XFS superblock'), deviceSize) ??
      (await secondFault(readAt, sb)) ??
      (state === 'idle' ? await idleFault(readAt, sb) : undefined);
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    fault = error.message;
  }
  const filesystem = sb && identity(sb, deviceSize);
  if (sb === undefined || fault !== undefined)
    return everythingUsed(deviceSize, fault ?? 'the XFS superblock cannot be read', filesystem);
  return {
    filesystem,
    everything: false,
    warnings: otherDevices(sb),
    extents: usedExtents(readAt, deviceSize, sb, state, signal),
  };
};

/** Version 4 has no checksum in its superblock; the copy in group 1 tells of a wrong byte. */
async function secondFault(readAt: ReadAt, sb: XfsSuperblock): Promise<string | undefined> {
  if (hasChecksums(sb) || sb.agCount < 2) return undefined;
  const offset = sb.agBlocks * sb.blockSize;
  return copyFault(sb, parseSuperblock(await readMetadata(readAt, offset, 512, 'XFS superblock of group 1')));
}

async function readSuperblock(readAt: ReadAt, deviceSize: number): Promise<XfsSuperblock | undefined> {
  if (deviceSize < superblockSize) return undefined;
  return parseSuperblock(await readMetadata(readAt, 0, Math.min(512, deviceSize), 'XFS superblock'));
}

function identity(sb: XfsSuperblock, deviceSize: number): FilesystemIdentity {
  return {
    type: 'xfs',
    uuid: sb.uuid,
    label: sb.label,
    blockSize: sb.blockSize,
    size: Math.min(filesystemSize(sb), deviceSize),
  };
}

/** Why the trees of an unmounted filesystem may be older than its log. */
async function idleFault(readAt: ReadAt, sb: XfsSuperblock): Promise<string | undefined> {
  const { logOffset } = sb;
  if (logOffset === undefined)
    return 'XFS has its log on another device, so it cannot be told whether the free-space trees are up to date';
  const fault = await logFault({
    blocks: sb.logSize / 512,
    read: (block, count) => readMetadata(readAt, logOffset + block * 512, count * 512, 'XFS log'),
    uuid: sb.rawUuid,
    version2: sb.logVersion2,
  });
  return fault && `XFS free-space trees may not be up to date: ${fault}`;
}

function otherDevices(sb: XfsSuperblock): string[] {
  const warnings: string[] = [];
  if (sb.realtimeBlocks > 0)
    warnings.push(
      `XFS has a realtime section of ${sb.realtimeBlocks * sb.blockSize} bytes on another device: the file data there is not part of this device`,
    );
  if (sb.logOffset === undefined)
    warnings.push('XFS has its log on another device: the log is not part of this device');
  return warnings;
}

/** Extents in a batch. */
const batchLength = 4096;
/** Groups whose headers are read ahead. */
const groupsAhead = 16;
/** The tree's root is read along with the headers where that costs no more than this. */
const longestHead = 64 * 1024;

async function* usedExtents(
  readAt: ReadAt,
  deviceSize: number,
  sb: XfsSuperblock,
  state: MountState,
  signal: AbortSignal | undefined,
): AsyncGenerator<readonly Extent[]> {
  let batch: Extent[] = [];
  /** Everything before is either in a batch or free. */
  let from = 0;
  for await (const { group, offset, head } of groupHeads(readAt, sb)) {
    signal?.throwIfAborted();
    const start = group * sb.agBlocks * sb.blockSize;
    try {
      const agf = parseAgf(head.subarray(0, sb.sectorSize), sb, group);
      const reader = { sb, readAt, signal, strict: state !== 'live', head: { data: head, offset } };
      for await (const pairs of freeExtents(reader, agf, ownMetadata(sb, agf))) {
        for (let i = 0; i < pairs.length; i += 2) {
          const free = start + pairs[i]! * sb.blockSize;
          if (free > from) batch.push({ offset: from, length: free - from });
          from = free + pairs[i + 1]! * sb.blockSize;
        }
        if (batch.length < batchLength) continue;
        yield batch;
        batch = [];
      }
    } catch (error) {
      if (state !== 'live' || !isUnreadable(error)) throw error;
    }
  }
  if (deviceSize > from) batch.push({ offset: from, length: deviceSize - from });
  if (batch.length > 0) yield batch;
}

/** Metadata in the group that the free-space tree by block number does not name. */
function ownMetadata(sb: XfsSuperblock, agf: FreeSpaceRoot): GroupRange[] {
  const own: GroupRange[] = [];
  const add = (start: number, count: number): void => {
    if (start >= firstBlockAfterHeaders(sb) && start < agf.length) own.push({ start, end: start + count });
  };
  const logBlock = sb.logOffset === undefined ? undefined : sb.logOffset / sb.blockSize;
  if (logBlock !== undefined && Math.floor(logBlock / sb.agBlocks) === agf.group)
    add(logBlock % sb.agBlocks, Math.ceil(sb.logSize / sb.blockSize));
  if (sb.rootInode.group === agf.group) add(sb.rootInode.block, 1);
  add(agf.bySize.root, 1);
  return own;
}

interface GroupHead {
  readonly group: number;
  /** Where in the group `head` begins: at the AGF. */
  readonly offset: number;
  readonly head: Buffer;
}

/** The AGF of every group, and mostly the root behind it, some groups ahead of their use. */
async function* groupHeads(readAt: ReadAt, sb: XfsSuperblock): AsyncGenerator<GroupHead> {
  const offset = sb.sectorSize;
  const withRoot = (firstBlockAfterHeaders(sb) + 1) * sb.blockSize;
  const read = async (group: number): Promise<GroupHead> => {
    const length = groupLength(sb, group) * sb.blockSize;
    const end = withRoot <= Math.min(longestHead, length) ? withRoot : 2 * sb.sectorSize;
    const start = group * sb.agBlocks * sb.blockSize;
    const what = `XFS allocation group ${group}, headers`;
    return { group, offset, head: await readMetadata(readAt, start + offset, end - offset, what) };
  };
  const ahead: Promise<GroupHead>[] = [];
  for (let group = 0; group < sb.agCount; group++) {
    const next = read(group);
    // It is awaited in its turn; until then its failure is nobody's surprise.
    next.catch(() => undefined);
    ahead.push(next);
    if (ahead.length >= groupsAhead) yield await ahead.shift()!;
  }
  for (const head of ahead) yield await head;
}

function isUnreadable(error: unknown): error is AgentError {
  return error instanceof AgentError && error.code === 'FILESYSTEM_UNREADABLE';
}
