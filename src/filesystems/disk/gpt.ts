/**
 * Reads a GUID partition table: UEFI specification 2.10, section 5.3. Both headers are checked with their CRCs. If the
 * primary is bad, the backup at the end of the disk is used.
 *
 * Header, in sector 1 and in the last one: 0 `EFI PART`, 12 header size, 16 CRC-32 of the header with this field as
 * zeros. Then sector numbers: 24 its own, 32 of the other header, 40 and 48 first and last usable sector. Then 56 disk
 * GUID, 72 first sector of the entries, 80 their number, 84 size of one, 88 CRC-32 of them all.
 * Entry: 0 type, 16 GUID, 32 and 40 first and last sector, 56 name (36 UTF-16 units).
 */
import { crc32 } from 'node:zlib';
import { isReadError } from '../../block/read-errors.ts';
import type { ReadAt } from '../../block/source.ts';
import { guidText, labelText } from '../uuid.ts';
import type { Partition, PartitionTable } from './partition.ts';
import { rangeProblem } from './ranges.ts';

export interface GptHeader {
  /** The header's sector as it is on the disk. */
  readonly sector: Buffer;
  readonly firstUsable: number;
  readonly lastUsable: number;
  readonly uuid: string | undefined;
  readonly entrySize: number;
  readonly entries: Buffer;
}

/** 128 entries of 128 bytes are usual. A table larger than this is damaged. */
const largestTable = 4 * 1024 * 1024;

/** The kernel shows at most this many partitions of a disk (DISK_MAX_PARTS in include/linux/genhd.h). */
const mostPartitions = 256;

/** Reads the GPT of a disk with a protective MBR. Sector numbers are of `sectorSize` bytes. */
export async function readGpt(
  readAt: ReadAt,
  deviceSize: number,
  sectorSize: number,
): Promise<PartitionTable> {
  const last = Math.floor(deviceSize / sectorSize) - 1;
  const primary = await readGptHeader(readAt, sectorSize, 1, last);
  if (typeof primary !== 'string') return table(primary, sectorSize, []);
  const backup = await readGptHeader(readAt, sectorSize, last, last);
  if (typeof backup !== 'string')
    return table(backup, sectorSize, [`GPT: primary header: ${primary}; the backup is used`]);
  return {
    kind: 'gpt',
    uuid: undefined,
    partitions: [],
    tableSectors: [],
    problem: `GPT: primary header: ${primary}; backup header: ${backup} (with sectors of ${sectorSize} bytes)`,
    warnings: [],
  };
}

/** Returns the header at sector `at` of a disk that ends with sector `last`, or the fault in it. */
export async function readGptHeader(
  readAt: ReadAt,
  sectorSize: number,
  at: number,
  last: number,
): Promise<GptHeader | string> {
  try {
    const header = Buffer.from(await readAt(at * sectorSize, sectorSize));
    const fault = headerFault(header, at, last);
    if (fault !== undefined) return fault;
    const size = header.readUInt32LE(80) * header.readUInt32LE(84);
    const start = Number(header.readBigUInt64LE(72));
    if (size === 0 || size > largestTable || start < 2 || start * sectorSize + size > (last + 1) * sectorSize)
      return `${size} bytes of entries from sector ${start}`;
    const entries = Buffer.from(await readAt(start * sectorSize, size));
    const computed = crc32(entries);
    const stored = header.readUInt32LE(88);
    if (computed !== stored) return `entries' checksum ${hex(computed)}, but ${hex(stored)} is stored`;
    return {
      sector: header,
      firstUsable: Number(header.readBigUInt64LE(40)),
      lastUsable: Number(header.readBigUInt64LE(48)),
      uuid: guidText(header.subarray(56, 72)),
      entrySize: header.readUInt32LE(84),
      entries,
    };
  } catch (error) {
    if (isReadError(error)) return error.message;
    throw error;
  }
}

function headerFault(header: Buffer, at: number, last: number): string | undefined {
  if (header.toString('latin1', 0, 8) !== 'EFI PART') return `no signature in sector ${at}`;
  const size = header.readUInt32LE(12);
  if (size < 92 || size > header.length) return `header size ${size}, a sector has ${header.length}`;
  const stored = header.readUInt32LE(16);
  const zeroed = Buffer.from(header.subarray(0, size));
  zeroed.writeUInt32LE(0, 16);
  const computed = crc32(zeroed);
  if (computed !== stored) return `checksum ${hex(computed)}, but ${hex(stored)} is stored`;
  const self = Number(header.readBigUInt64LE(24));
  if (self !== at) return `it is in sector ${at}, but says ${self}`;
  const lastUsable = Number(header.readBigUInt64LE(48));
  if (lastUsable > last) return `last usable sector ${lastUsable}, but the disk ends with ${last}`;
  const entrySize = header.readUInt32LE(84);
  if (entrySize < 128 || entrySize % 8 !== 0) return `entries of ${entrySize} bytes`;
  return undefined;
}

function table(header: GptHeader, sectorSize: number, warnings: readonly string[]): PartitionTable {
  const partitions: Partition[] = [];
  for (let at = 0; at + header.entrySize <= header.entries.length; at += header.entrySize) {
    const entry = header.entries.subarray(at, at + header.entrySize);
    const type = guidText(entry.subarray(0, 16));
    if (type === undefined) continue;
    const start = Number(entry.readBigUInt64LE(32));
    const end = Number(entry.readBigUInt64LE(40)) + 1;
    partitions.push({
      number: at / header.entrySize + 1,
      start: start * sectorSize,
      size: (end - start) * sectorSize,
      uuid: guidText(entry.subarray(16, 32)),
      label: labelText(Buffer.from(entry.toString('utf16le', 56, 128))),
      type,
      container: false,
    });
  }
  if (partitions.length > mostPartitions)
    return {
      kind: 'gpt',
      uuid: header.uuid,
      partitions: [],
      tableSectors: [],
      problem: `GPT: ${partitions.length} partitions, more than ${mostPartitions}`,
      warnings,
    };
  const problem = rangeProblem(
    partitions.map(({ number, start, size }) => ({ name: `partition ${number}`, start, end: start + size })),
    header.firstUsable * sectorSize,
    (header.lastUsable + 1) * sectorSize,
  );
  return {
    kind: 'gpt',
    uuid: header.uuid,
    partitions,
    tableSectors: [],
    problem: problem === undefined ? undefined : `GPT: ${problem}`,
    warnings,
  };
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
