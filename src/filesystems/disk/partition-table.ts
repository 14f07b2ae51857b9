/** Partition tables as the devices room and the used map see them: GPT, or MBR with its logical partitions. */
import type { ReadAt } from '../../block/source.ts';
import { probeBootSector } from '../signatures/fat.ts';
import { readGpt } from './gpt.ts';
import { isProtective, parseMbr, readMbr } from './mbr.ts';

export interface Partition {
  /** As in `/dev/sdaN`. */
  readonly number: number;
  /** Bytes. */
  readonly start: number;
  readonly size: number;
  /** PARTUUID as blkid and lsblk print it; `xxxxxxxx-NN` with MBR; undefined where the disk has no identifier. */
  readonly uuid: string | undefined;
  readonly label: string | undefined;
  /** PARTTYPE as lsblk prints it: a GUID, or `0x83`. */
  readonly type: string;
  /** An extended partition, which holds the logical ones. */
  readonly container: boolean;
}

export interface PartitionTable {
  readonly kind: 'gpt' | 'mbr';
  /** PTUUID. */
  readonly uuid: string | undefined;
  readonly partitions: readonly Partition[];
  /** Byte ranges besides the partitions that the table itself lies in, where they may be anywhere (EBRs). */
  readonly tableSectors: readonly { readonly offset: number; readonly length: number }[];
  /** Why the table cannot be relied on: overlaps, ranges outside the disk, no valid header. */
  readonly problem: string | undefined;
  /** For people; the table holds nonetheless. */
  readonly warnings: readonly string[];
}

/**
 * Undefined where there is no table: also for the boot sector of a FAT, NTFS or exFAT filesystem, which ends as
 * one does. `deviceSize` and `sectorSize` (logical) in bytes. Throws DEVICE_READ_ERROR.
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
