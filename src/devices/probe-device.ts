/** What lies on a device: its filesystem or partition table, read from the device itself. */
import { openDeviceSource } from '../block/device-source.ts';
import type { ReadAt } from '../block/source.ts';
import type { FilesystemIdentity } from '../filesystems/used-map.ts';
import { labelText, uuidText } from '../filesystems/uuid.ts';

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

/** Opens the device, looks, and closes it. Throws what opening and reading throw. */
export async function probeDevice(path: string): Promise<Probed> {
  const source = await openDeviceSource(path);
  try {
    const readAt: ReadAt = (offset, length) => source.readAt(offset, length);
    const filesystem = await interim(readAt, source.size);
    return { filesystem, table: undefined, partitions: [] };
  } finally {
    await source.close();
  }
}

async function interim(readAt: ReadAt, size: number): Promise<FilesystemIdentity | undefined> {
  if (size < 4096) return undefined;
  const head = Buffer.from(await readAt(0, 4096));
  const base = { blockSize: undefined, size: undefined };
  if (head.subarray(0, 4).toString() === 'XFSB')
    return {
      type: 'xfs',
      uuid: uuidText(head.subarray(32, 48)),
      label: labelText(head.subarray(108, 120)),
      ...base,
    };
  const ext = head.subarray(1024);
  if (ext.readUInt16LE(0x38) !== 0xef53) return undefined;
  const type =
    (ext.readUInt32LE(0x60) & 0x2c0) !== 0 ? 'ext4' : (ext.readUInt32LE(0x5c) & 4) !== 0 ? 'ext3' : 'ext2';
  return {
    type,
    uuid: uuidText(ext.subarray(0x68, 0x78)),
    label: labelText(ext.subarray(0x78, 0x88)),
    ...base,
  };
}
