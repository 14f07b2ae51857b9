/**
 * Computes the places of structures in an ext2/3/4 filesystem: groups, copies of the superblock, blocks of the
 * descriptor table. Pure arithmetic over the superblock; docs/formats/ext.md. Numbers are blocks.
 */
import type { ExtSuperblock } from './superblock.ts';

/** A range of blocks, `end` excluded. */
export interface BlockRange {
  readonly start: number;
  readonly end: number;
}

export function groupRange(sb: ExtSuperblock, group: number): BlockRange {
  const start = sb.firstDataBlock + group * sb.blocksPerGroup;
  return { start, end: Math.min(start + sb.blocksPerGroup, sb.blocks) };
}

export function groupOf(sb: ExtSuperblock, block: number): number {
  return Math.floor((block - sb.firstDataBlock) / sb.blocksPerGroup);
}

export function hasSuperblock(sb: ExtSuperblock, group: number): boolean {
  if (group === 0 || sb.backups === 'all') return true;
  if (sb.backups !== 'sparse') return sb.backups.includes(group);
  return group === 1 || [3, 5, 7].some((base) => isPower(group, base));
}

function isPower(value: number, base: number): boolean {
  let rest = value;
  while (rest > 1 && rest % base === 0) rest /= base;
  return rest === 1 && value > 1;
}

/**
 * Returns the first block of the group that may hold filesystem metadata. If blocks have 1 KiB, block 0 is the boot
 * block.
 */
function metadataStart(sb: ExtSuperblock, group: number): number {
  const { start } = groupRange(sb, group);
  return start === 0 && sb.blockSize === 1024 ? 1 : start;
}

/** Returns the block that holds block `index` of the descriptor table. */
export function descriptorBlock(sb: ExtSuperblock, index: number): number {
  if (sb.firstMetaGroup === undefined || index < sb.firstMetaGroup) return metadataStart(sb, 0) + 1 + index;
  const group = index * sb.descriptorsPerBlock;
  return metadataStart(sb, group) + (hasSuperblock(sb, group) ? 1 : 0);
}

/**
 * Returns the copies of superblock and descriptor table in a group; with `reserved`, the reserved descriptor blocks
 * too.
 */
export function fixedMetadata(sb: ExtSuperblock, group: number, reserved = false): BlockRange {
  const { start, end } = groupRange(sb, group);
  const first = metadataStart(sb, group);
  const superblocks = hasSuperblock(sb, group) ? 1 : 0;
  const metaGroup = Math.floor(group / sb.descriptorsPerBlock);
  let descriptors = 0;
  if (sb.firstMetaGroup === undefined || metaGroup < sb.firstMetaGroup) {
    if (superblocks)
      descriptors = (sb.firstMetaGroup ?? sb.descriptorBlocks) + (reserved ? sb.reservedDescriptorBlocks : 0);
  } else {
    const member = group % sb.descriptorsPerBlock;
    if (member <= 1 || member === sb.descriptorsPerBlock - 1) descriptors = 1;
  }
  const used = first + superblocks + descriptors;
  return { start, end: used === first ? start : Math.min(used, end) };
}
