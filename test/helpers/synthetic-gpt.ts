/** Builds partition tables (UEFI specification, 5.3) with correct checksums. */
import { crc32 } from 'node:zlib';

export interface MbrPart {
  readonly type: number;
  readonly start: number;
  readonly sectors: number;
}

/** Writes a table at a byte of the disk. All entries are in sectors. */
export function writeMbr(disk: Buffer, at: number, entries: readonly MbrPart[]): void {
  for (const [i, entry] of entries.entries()) {
    const offset = at + 446 + i * 16;
    disk[offset + 4] = entry.type;
    disk.writeUInt32LE(entry.start, offset + 8);
    disk.writeUInt32LE(entry.sectors, offset + 12);
  }
  disk.writeUInt16BE(0x55aa, at + 510);
}

/**
 * Writes a table of 128 entries and its backup over the whole disk, with a protective MBR. All entries are in
 * sectors.
 */
export function writeGpt(
  disk: Buffer,
  sectorSize: number,
  parts: readonly { first: number; last: number }[],
): void {
  const last = disk.length / sectorSize - 1;
  writeMbr(disk, 0, [{ type: 0xee, start: 1, sectors: last }]);
  const entries = Buffer.alloc(128 * 128);
  for (const [i, { first, last: end }] of parts.entries()) {
    entries.fill(0x11 + i, i * 128, i * 128 + 32);
    entries.writeBigUInt64LE(BigInt(first), i * 128 + 32);
    entries.writeBigUInt64LE(BigInt(end), i * 128 + 40);
    entries.write(`part ${i + 1}`, i * 128 + 56, 'utf16le');
  }
  const entrySectors = Math.ceil(entries.length / sectorSize);
  for (const [self, other, table] of [
    [1, last, 2],
    [last, 1, last - entrySectors],
  ] as const) {
    entries.copy(disk, table * sectorSize);
    const header = disk.subarray(self * sectorSize, (self + 1) * sectorSize).fill(0);
    header.write('EFI PART', 'latin1');
    header.writeUInt32LE(0x10000, 8);
    header.writeUInt32LE(92, 12);
    header.writeBigUInt64LE(BigInt(self), 24);
    header.writeBigUInt64LE(BigInt(other), 32);
    header.writeBigUInt64LE(BigInt(2 + entrySectors), 40);
    header.writeBigUInt64LE(BigInt(last - entrySectors - 1), 48);
    header.fill(0xab, 56, 72);
    header.writeBigUInt64LE(BigInt(table), 72);
    header.writeUInt32LE(128, 80);
    header.writeUInt32LE(128, 84);
    header.writeUInt32LE(crc32(entries), 88);
    header.writeUInt32LE(crc32(header.subarray(0, 92)), 16);
  }
}
