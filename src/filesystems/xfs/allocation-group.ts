/**
 * Reads the AGF sector of an XFS allocation group: the roots of its free-space trees, and their sum. Pure; see
 * docs/formats/xfs.md.
 */
import { AgentError } from '../../base/errors.ts';
import { checksumFault, hex } from './checksum.ts';
import { firstBlockAfterHeaders, groupLength, hasChecksums, type XfsSuperblock } from './superblock.ts';

export interface FreeSpaceRoot {
  /** Number of the allocation group. */
  readonly group: number;
  /** Length of the group in blocks. */
  readonly length: number;
  /** Block of the tree's root, inside the group. */
  readonly root: number;
  /** 1 if the root is a leaf. */
  readonly levels: number;
  /** Number of blocks in all extents of the tree. */
  readonly freeBlocks: number;
  /** Root and levels of the other tree of the same extents, which is sorted by their size. */
  readonly bySize: { readonly root: number; readonly levels: number };
}

const magic = 0x58414746;
const crcOffset = 216;
/** XFS_BTREE_MAXLEVELS. */
export const mostLevels = 9;

/** Reads the AGF of `group`. Throws FILESYSTEM_UNREADABLE. */
export function parseAgf(sector: Buffer, sb: XfsSuperblock, group: number): FreeSpaceRoot {
  const fail = (text: string): never => {
    throw unreadable(`XFS allocation group ${group}, AGF: ${text}`);
  };
  if (sector.readUInt32BE(0) !== magic) fail(`magic is ${hex(sector.readUInt32BE(0))}, not ${hex(magic)}`);
  if (hasChecksums(sb)) {
    const fault = checksumFault(sector, crcOffset);
    if (fault !== undefined) fail(fault);
    if (!sector.subarray(64, 80).equals(sb.metaUuid)) fail('it belongs to another filesystem (UUID differs)');
  }
  const version = sector.readUInt32BE(4);
  if (version !== 1) fail(`version is ${version}, not 1`);
  const number = sector.readUInt32BE(8);
  if (number !== group) fail(`it is numbered ${number}`);
  const length = sector.readUInt32BE(12);
  const expected = groupLength(sb, group);
  if (length !== expected) fail(`length is ${length} blocks, the superblock says ${expected}`);
  const root = sector.readUInt32BE(16);
  const levels = sector.readUInt32BE(28);
  const freeBlocks = sector.readUInt32BE(52);
  if (root < firstBlockAfterHeaders(sb) || root >= length)
    fail(`root block ${root} of the free-space tree is outside of the group's ${length} blocks`);
  if (levels < 1 || levels > mostLevels)
    fail(`the free-space tree has ${levels} levels, at most ${mostLevels} can be`);
  if (freeBlocks > length) fail(`${freeBlocks} blocks are free of ${length}`);
  const bySize = { root: sector.readUInt32BE(20), levels: sector.readUInt32BE(32) };
  return { group, length, root, levels, freeBlocks, bySize };
}

export function unreadable(message: string, cause?: unknown): AgentError {
  return new AgentError('FILESYSTEM_UNREADABLE', message, {
    hint: 'check the filesystem with xfs_repair -n; until then every block counts as used',
    ...(cause === undefined ? {} : { cause }),
  });
}

export function isUnreadable(error: unknown): error is AgentError {
  return error instanceof AgentError && error.code === 'FILESYSTEM_UNREADABLE';
}
