/**
 * XFS: its identity (`probeXfs`) and the bytes that it uses (`readXfsUsedMap`). Everything is used except the extents
 * in the free-space trees. docs/formats/xfs.md says which structures are read and trusted, and when none is.
 */
import type { ReadAt } from '../../block/source.ts';
import {
  everythingUsed,
  type FilesystemIdentity,
  type UsedMapOptions,
  type UsedMapReader,
} from '../used-map.ts';
import { isUnreadable } from './allocation-group.ts';
import { readMetadata } from './free-space-tree.ts';
import { XfsGroups, type XfsReading } from './groups.ts';
import { KeptGroups } from './kept.ts';
import { logFault } from './log.ts';
import {
  copyFault,
  filesystemSize,
  hasChecksums,
  parseSuperblock,
  superblockFault,
  superblockSize,
  type XfsSuperblock,
} from './superblock.ts';

/**
 * Returns undefined if `[0, deviceSize)` does not begin with a possible XFS superblock. Does not check the checksum.
 */
export async function probeXfs(readAt: ReadAt, deviceSize: number): Promise<FilesystemIdentity | undefined> {
  const sb = await readSuperblock(readAt, deviceSize);
  return sb && identity(sb, deviceSize);
}

/**
 * Reads the used map from the free-space trees. Blocks on the free list (AGFL) count as used. In state `live`, an
 * inconsistent allocation group counts as used as a whole. In the other states, the walk throws FILESYSTEM_UNREADABLE.
 */
export const readXfsUsedMap: UsedMapReader = async (readAt, deviceSize, options = {}) => {
  const { signal, state = 'idle', keep = false } = options;
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
  const groups = openGroups({ sb, readAt, deviceSize, state, signal }, options);
  return {
    filesystem,
    everything: false,
    warnings: otherDevices(sb),
    extents: groups.extents(),
    grouped: keep ? groups : undefined,
  };
};

/** Returns all groups; or, with an earlier map, those that may have changed since. */
function openGroups(reading: XfsReading, { keep = false, earlier }: UsedMapOptions): XfsGroups {
  const before = earlier?.grouped instanceof XfsGroups ? earlier.grouped : undefined;
  let whyAll = earlier !== undefined && before === undefined ? 'it was another filesystem' : undefined;
  if (earlier !== undefined && before !== undefined) {
    const next = before.next(reading, earlier.isWritten);
    if (typeof next !== 'string') return next;
    whyAll = next;
  }
  return new XfsGroups(reading, { kept: keep ? new KeptGroups(reading.sb) : undefined, whyAll });
}

/** Version 4 has no checksum in its superblock; a comparison with the copy in group 1 shows a wrong byte. */
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

/** Returns why the trees of an unmounted filesystem may be older than its log. */
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
