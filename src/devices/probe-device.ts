/** Reads from a device which filesystem or partition table lies on it. */
import { AgentError } from '../base/errors.ts';
import { openDeviceSource } from '../block/device-source.ts';
import type { ReadAt } from '../block/source.ts';
import { readPartitionTable } from '../filesystems/disk/partition-table.ts';
import { probe } from '../filesystems/probe.ts';
import type { FilesystemIdentity } from '../filesystems/used-map.ts';

export interface ProbedPartition {
  readonly number: number;
  /** Bytes from the start of the disk. */
  readonly start: number;
  readonly uuid: string | undefined;
  readonly label: string | undefined;
}

export interface Probed {
  readonly filesystem: FilesystemIdentity | undefined;
  readonly table: 'gpt' | 'mbr' | undefined;
  readonly partitions: readonly ProbedPartition[];
}

/**
 * Opens the device, reads it, and closes it. Ignores a filesystem or table in bad sectors. Throws the errors of
 * opening.
 */
export async function probeDevice(path: string): Promise<Probed> {
  const source = await openDeviceSource(path);
  try {
    const readAt: ReadAt = (offset, length) => source.readAt(offset, length);
    const filesystem = await unlessUnreadable(probe(readAt, source.size));
    const table = await unlessUnreadable(readPartitionTable(readAt, source.size, source.sectorSize));
    return { filesystem, table: table?.kind, partitions: table?.partitions ?? [] };
  } finally {
    await source.close();
  }
}

async function unlessUnreadable<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (thrown) {
    const code = thrown instanceof AgentError ? thrown.code : undefined;
    if (code === 'DEVICE_READ_ERROR' || code === 'FILESYSTEM_UNREADABLE') return undefined;
    throw thrown;
  }
}
