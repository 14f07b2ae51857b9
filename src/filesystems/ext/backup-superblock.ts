/**
 * Compares the superblock with its first copy. Without metadata_csum no checksum covers the superblock, and one wrong
 * byte in it moves the whole map. Kernel and tools keep these fields of the copy up to date.
 */
import type { ReadAt } from '../../block/source.ts';
import { groupRange, hasSuperblock } from './layout.ts';
import { type ExtSuperblock, parseSuperblock, superblockLength } from './superblock.ts';

const fields = [
  'blockSize',
  'firstDataBlock',
  'blocksPerGroup',
  'clusterBlocks',
  'clustersPerGroup',
  'inodesPerGroup',
  'inodeTableBlocks',
  'descriptorSize',
  'checksum',
] as const;

/** Returns the first field in which both differ, with both values; undefined if all agree or there is no copy. */
export async function backupProblem(sb: ExtSuperblock, readAt: ReadAt): Promise<string | undefined> {
  if (sb.checksum === 'crc32c') return undefined;
  const group = firstBackup(sb);
  if (group === undefined) return undefined;
  const block = groupRange(sb, group).start;
  const copy = parseSuperblock(await readAt(block * sb.blockSize, superblockLength));
  if (copy === undefined) return `its copy of the superblock should be at block ${block}, and is not`;
  const field = fields.find((each) => copy[each] !== sb[each]);
  if (field === undefined) return undefined;
  return `superblock: ${field} is ${sb[field]}, but ${copy[field]} in its copy at block ${block}`;
}

function firstBackup(sb: ExtSuperblock): number | undefined {
  const candidates = typeof sb.backups === 'string' ? [1] : [...sb.backups].sort((a, b) => a - b);
  return candidates.find((group) => group > 0 && group < sb.groups && hasSuperblock(sb, group));
}
