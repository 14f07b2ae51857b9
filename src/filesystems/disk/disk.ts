/**
 * Reads the used map of a partitioned disk: each partition by its own filesystem. Everything outside partitions
 * (tables, boot loaders, gaps), and every partition with unknown content, counts as used.
 */
import { AgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import type { ReadAt } from '../../block/source.ts';
import { ExtentBatches } from '../extent-batches.ts';
import { readFilesystemUsedMap } from '../read-filesystem.ts';
import { findSignatures } from '../signatures/signatures.ts';
import { type ExpectedFilesystem, type MountState, type UsedMap, everythingUsed } from '../used-map.ts';
import { unreadableReason, verifiedUsedMap } from '../verified-used-map.ts';
import { readPartitionTable } from './partition-table.ts';
import type { Partition, PartitionTable } from './partition.ts';

export interface DiskMapOptions {
  readonly signal?: AbortSignal;
  /** By the offset in bytes at which the partition begins; `idle` if there is no entry. */
  readonly partitionStates?: ReadonlyMap<number, MountState>;
  /** The expected filesystem of each partition, with the same keys. */
  readonly partitionsExpected?: ReadonlyMap<number, ExpectedFilesystem>;
}

/** Each partition is walked twice. A damaged one is used as a whole, and the others are not affected. */
export async function readDiskUsedMap(
  readAt: ReadAt,
  deviceSize: number,
  sectorSize: number,
  table: PartitionTable,
  options: DiskMapOptions,
): Promise<UsedMap> {
  if (table.problem !== undefined) return everythingUsed(deviceSize, table.problem);
  const partitions = table.partitions
    .filter((partition) => !partition.container)
    .sort((a, b) => a.start - b.start);
  const warnings = [...table.warnings];
  const parts: { partition: Partition; map: UsedMap }[] = [];
  for (const partition of partitions) {
    options.signal?.throwIfAborted();
    const { map, hasReader } = await readPartition(readAt, sectorSize, partition, options);
    if (hasReader) warnings.push(...map.warnings.map((text) => `partition ${partition.number}: ${text}`));
    parts.push({ partition, map });
  }
  const everything = parts.every(({ map }) => map.everything);
  if (everything && warnings.length === 0)
    warnings.push('no partition with a filesystem whose free space can be read');
  return { filesystem: undefined, everything, warnings, extents: walk(deviceSize, parts) };
}

async function readPartition(
  readAt: ReadAt,
  sectorSize: number,
  { start, size }: Partition,
  options: DiskMapOptions,
): Promise<{ map: UsedMap; hasReader: boolean }> {
  const within: ReadAt = (offset, length) => {
    if (offset < 0 || offset + length > size)
      throw new AgentError('INTERNAL', `read of ${length} bytes at ${offset} in a partition of ${size}`);
    return readAt(start + offset, length);
  };
  const mapOptions = {
    state: options.partitionStates?.get(start) ?? 'idle',
    expected: options.partitionsExpected?.get(start),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  };
  let hasReader = true;
  const map = await verifiedUsedMap(size, async () => {
    try {
      // The partition may be the disk of a virtual machine. A filesystem signature below its table is as stale as on a
      // disk.
      const inner = await readPartitionTable(within, size, sectorSize);
      if (inner !== undefined && (inner.partitions.length > 0 || inner.problem !== undefined)) {
        hasReader = (await findSignatures(within, size)).length > 0;
        return everythingUsed(size, `it holds a partition table of its own (${inner.kind})`);
      }
      const read = await readFilesystemUsedMap(within, size, mapOptions);
      ({ hasReader } = read);
      return read.map;
    } catch (error) {
      return everythingUsed(size, unreadableReason(error));
    }
  });
  return { map, hasReader };
}

async function* walk(
  deviceSize: number,
  parts: readonly { partition: Partition; map: UsedMap }[],
): AsyncGenerator<readonly Extent[]> {
  const batches = new ExtentBatches();
  let at = 0;
  for (const { partition, map } of parts) {
    batches.add(at, partition.start);
    for await (const extents of map.extents) {
      for (const { offset, length } of extents)
        batches.add(partition.start + offset, partition.start + offset + length);
      const batch = batches.take();
      if (batch.length > 0) yield batch;
    }
    at = partition.start + partition.size;
  }
  batches.add(at, deviceSize);
  const rest = batches.finish();
  if (rest.length > 0) yield rest;
}
