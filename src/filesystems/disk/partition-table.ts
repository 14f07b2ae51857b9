/** Reads partition tables for src/devices and the used map: GPT, or MBR with its logical partitions. */
import type { ReadAt } from '../../block/source.ts';
import { probeBootSector } from '../signatures/fat.ts';
import { readGpt } from './gpt.ts';
import { isProtective, parseMbr, readMbr } from './mbr.ts';
import type { PartitionTable } from './partition.ts';

/**
 * Returns undefined if there is no table. The boot sector of a FAT, NTFS or exFAT filesystem is not a table, although
 * it ends with the same bytes. `deviceSize` and `sectorSize` (logical) in bytes. Throws DEVICE_READ_ERROR.
 */
export async function readPartitionTable(
  readAt: ReadAt,
  deviceSize: number,
  sectorSize: number,
): Promise<PartitionTable | undefined> {
  if (deviceSize < 2 * sectorSize) return undefined;
  const sector = Buffer.from(await readAt(0, 512));
  const mbr = parseMbr(sector);
  if (mbr === undefined) return undefined;
  if (isProtective(mbr)) return readGpt(readAt, deviceSize, sectorSize);
  if ((await probeBootSector(sector, readAt, deviceSize)) !== undefined) return undefined;
  return readMbr(readAt, deviceSize, sectorSize, mbr);
}
