/**
 * Reads one block of the XFS free-space tree by block number (bnobt): checks of its header, records of a leaf, keys and
 * pointers of a node. Pure; see docs/formats/xfs.md. The walk in free-space-tree.ts checks the relations between
 * blocks.
 */
import { unreadable } from './allocation-group.ts';
import { checksumFault, hex, readUInt64 } from './checksum.ts';
import { firstBlockAfterHeaders, hasChecksums, type XfsSuperblock } from './superblock.ts';

export interface BlockPlace {
  readonly group: number;
  /** Length of the group in blocks. */
  readonly length: number;
  /** Block number inside the group. */
  readonly block: number;
  /** 0 for a leaf. */
  readonly level: number;
}

export interface FreeSpaceBlock {
  readonly leftSibling: number;
  readonly rightSibling: number;
  /**
   * For a leaf: pairs of first block and number of blocks. For a node: pairs of key (first block of the first record
   * below) and the child's block number.
   */
  readonly pairs: Uint32Array;
}

/** Means that there is no sibling. */
export const noBlock = 0xffffffff;

/** One of the two trees of free extents: by block number (bnobt) or by size (cntbt, read only in version 4). */
export type TreeOrder = 'block' | 'size';

const magics = {
  block: { 4: 0x41425442, 5: 0x41423342 },
  size: { 4: 0x41425443, 5: 0x41423343 },
} as const;
const crcOffset = 52;

/** Names the block: "XFS allocation group 3, free-space tree block 17 (level 0)" */
export function placeName(place: BlockPlace): string {
  return `XFS allocation group ${place.group}, free-space tree block ${place.block} (level ${place.level})`;
}

/** Returns the most records of a leaf, or children of a node. */
export function mostEntries(sb: XfsSuperblock, level: number): number {
  return Math.floor((sb.blockSize - headerSize(sb)) / (level === 0 ? 8 : 12));
}

function headerSize(sb: XfsSuperblock): number {
  return hasChecksums(sb) ? 56 : 16;
}

/** Reads one block that is expected at `place`. Throws FILESYSTEM_UNREADABLE. */
export function parseFreeSpaceBlock(
  data: Buffer,
  sb: XfsSuperblock,
  place: BlockPlace,
  root: boolean,
  order: TreeOrder = 'block',
): FreeSpaceBlock {
  const fail = (text: string): never => {
    throw unreadable(`${placeName(place)}: ${text}`);
  };
  const magic = magics[order][hasChecksums(sb) ? 5 : 4];
  if (data.readUInt32BE(0) !== magic) fail(`magic is ${hex(data.readUInt32BE(0))}, not ${hex(magic)}`);
  if (hasChecksums(sb)) {
    const fault = checksumFault(data, crcOffset);
    if (fault !== undefined) fail(fault);
    const address = (place.group * sb.agBlocks + place.block) * (sb.blockSize / 512);
    const said = readUInt64(data, 16);
    if (said !== address) fail(`it says to be at sector ${said}, and is at ${address}`);
    const owner = data.readUInt32BE(48);
    if (owner !== place.group) fail(`it says to be owned by group ${owner}`);
    if (!data.subarray(32, 48).equals(sb.metaUuid)) fail('it belongs to another filesystem (UUID differs)');
  }
  const level = data.readUInt16BE(4);
  if (level !== place.level) fail(`it says to be of level ${level}`);
  const count = data.readUInt16BE(6);
  const most = mostEntries(sb, level);
  if (count > most) fail(`it counts ${count} entries, ${most} fit`);
  // A block may be empty only in a group without any free extent: the root, which is a leaf.
  if (count === 0 && !(root && level === 0)) fail('it is empty');
  const first = headerSize(sb);
  const pairs = new Uint32Array(count * 2);
  if (level === 0) {
    for (let i = 0; i < count * 2; i++) pairs[i] = data.readUInt32BE(first + i * 4);
  } else {
    for (let i = 0; i < count; i++) {
      pairs[i * 2] = data.readUInt32BE(first + i * 8);
      const child = data.readUInt32BE(first + most * 8 + i * 4);
      if (child < firstBlockAfterHeaders(sb) || child >= place.length)
        fail(`child ${i} is block ${child}, outside of the group's ${place.length} blocks`);
      pairs[i * 2 + 1] = child;
    }
  }
  return { leftSibling: data.readUInt32BE(8), rightSibling: data.readUInt32BE(12), pairs };
}
