/**
 * Reads the used map of any device: one filesystem, or partitions. This file, mark-used.ts and
 * read-verified-used-map.ts are the interface of this folder.
 *
 * If both a filesystem's signature and a partition table with partitions are found, one of them is stale, and the
 * device does not show which. mke2fs and mkfs.xfs erase an earlier table; partitioning tools leave signatures behind.
 * So everything is used.
 */
import type { ReadAt } from '../block/source.ts';
import { readDiskUsedMap } from './disk/disk.ts';
import { readPartitionTable } from './disk/partition-table.ts';
import type { PartitionTable } from './disk/partition.ts';
import { readFilesystemUsedMap } from './read-filesystem.ts';
import { type Signature, findSignatures, typesOf } from './signatures/signatures.ts';
import {
  type ExpectedFilesystem,
  type MountState,
  type UsedMap,
  type UsedMapOptions,
  everythingUsed,
} from './used-map.ts';
import { unreadableReason } from './verified-used-map.ts';

/** `state` is the state of a filesystem directly on the device. Partitions have their own. */
export interface ReadUsedMapOptions extends UsedMapOptions {
  /** By the offset in bytes at which the partition begins; `idle` if there is no entry. */
  readonly partitionStates?: ReadonlyMap<number, MountState>;
  /** The expected filesystem of each partition, with the same keys. */
  readonly partitionsExpected?: ReadonlyMap<number, ExpectedFilesystem>;
}

/**
 * Bytes and sectors as in `Source`. The walk may throw FILESYSTEM_UNREADABLE if a bitmap fails its checksum. `markUsed`
 * and `readVerifiedUsedMap` handle this error. Throws AbortError and DEVICE_GONE.
 */
export async function readUsedMap(
  readAt: ReadAt,
  deviceSize: number,
  sectorSize: number,
  options: ReadUsedMapOptions = {},
): Promise<UsedMap> {
  try {
    options.signal?.throwIfAborted();
    if (deviceSize === 0) return everythingUsed(0, 'the device is empty');
    const table = await readPartitionTable(readAt, deviceSize, sectorSize);
    const signatures = outsidePartitions(await findSignatures(readAt, deviceSize), table);
    if (table === undefined || (table.partitions.length === 0 && table.problem === undefined))
      return (await readFilesystemUsedMap(readAt, deviceSize, options, signatures)).map;
    if (signatures.length === 0) return await readDiskUsedMap(readAt, deviceSize, sectorSize, table, options);
    const types = typesOf(signatures).join(' and ');
    return everythingUsed(
      deviceSize,
      `a partition table (${table.kind}) and a signature of ${types}: it cannot be told which is stale (see wipefs)`,
    );
  } catch (error) {
    return everythingUsed(deviceSize, unreadableReason(error));
  }
}

/**
 * Removes signatures inside partitions. The superblock of a RAID member in the last partition is at the same place as
 * one of the whole disk would be.
 */
function outsidePartitions(
  signatures: readonly Signature[],
  table: PartitionTable | undefined,
): readonly Signature[] {
  const partitions = table?.problem === undefined ? (table?.partitions ?? []) : [];
  return signatures.filter(
    ({ offset }) => !partitions.some(({ start, size }) => offset >= start && offset < start + size),
  );
}
