/**
 * Recognises boot sectors with a BIOS parameter block: FAT, NTFS, exFAT. They end in 0x55 0xAA as a partition table
 * does. The checks are those of libblkid (superblocks/vfat.c, ntfs.c, exfat.c of util-linux), because they decide
 * whether a sector is a filesystem or a table.
 */
import type { ReadAt } from '../../block/source.ts';
import type { FilesystemIdentity } from '../used-map.ts';
import { labelText } from '../uuid.ts';

/** Returns a FAT, NTFS or exFAT identity by the first sector; undefined if it is none of them. */
export async function probeBootSector(
  sector: Buffer,
  readAt: ReadAt,
  deviceSize: number,
): Promise<FilesystemIdentity | undefined> {
  if (sector.length < 512) return undefined;
  return (
    (await probeFat(sector, readAt, deviceSize)) ??
    (await probeNtfs(sector, readAt, deviceSize)) ??
    probeExfat(sector)
  );
}

interface FatGeometry {
  readonly sectorSize: number;
  readonly clusterSize: number;
  readonly sectors: number;
  readonly fat32: boolean;
  /** Bytes from the start to the root directory of FAT12/16, or to the data area of FAT32. */
  readonly afterTables: number;
  readonly rootEntries: number;
}

async function probeFat(
  sector: Buffer,
  readAt: ReadAt,
  deviceSize: number,
): Promise<FilesystemIdentity | undefined> {
  const fat = fatGeometry(sector);
  if (fat === undefined) return undefined;
  const signed = sector[fat.fat32 ? 0x42 : 0x26]!;
  const serial = sector.subarray(fat.fat32 ? 0x43 : 0x27).subarray(0, 4);
  const rootStart = fat.fat32
    ? fat.afterTables + (sector.readUInt32LE(0x2c) - 2) * fat.clusterSize
    : fat.afterTables;
  const rootLength = fat.fat32 ? fat.clusterSize : fat.rootEntries * 32;
  const readable = rootStart > 0 && rootLength > 0 && rootStart + rootLength <= deviceSize;
  return {
    type: 'vfat',
    uuid: fat.fat32 || signed === 0x28 || signed === 0x29 ? serialText(serial) : undefined,
    label: readable ? fatLabel(await readAt(rootStart, rootLength)) : undefined,
    blockSize: fat.sectorSize,
    size: Math.min(fat.sectors * fat.sectorSize, deviceSize),
  };
}

function fatGeometry(sector: Buffer): FatGeometry | undefined {
  const magicAt = (offset: number, text: string): boolean =>
    sector.toString('latin1', offset, offset + text.length) === text;
  const named =
    magicAt(0x52, 'MSWIN') ||
    magicAt(0x52, 'FAT32   ') ||
    ['MSDOS', 'FAT16   ', 'FAT12   ', 'FAT     '].some((text) => magicAt(0x36, text));
  if (!named) {
    if (sector[0x1fe] !== 0x55 || sector[0x1ff] !== 0xaa) return undefined;
    if (magicAt(0x36, 'JFS     ') || magicAt(0x36, 'HPFS    ')) return undefined;
  }
  const sectorSize = sector.readUInt16LE(0x0b);
  const clusterSectors = sector[0x0d]!;
  const reserved = sector.readUInt16LE(0x0e);
  const tables = sector[0x10]!;
  const rootEntries = sector.readUInt16LE(0x11);
  const media = sector[0x15]!;
  if (tables === 0 || reserved === 0 || !(media >= 0xf8 || media === 0xf0)) return undefined;
  if (!isPowerOfTwo(clusterSectors) || !isPowerOfTwo(sectorSize)) return undefined;
  if (sectorSize < 512 || sectorSize > 4096) return undefined;

  const sectors = sector.readUInt16LE(0x13) || sector.readUInt32LE(0x20);
  const shortTable = sector.readUInt16LE(0x16);
  const tableSectors = (shortTable || sector.readUInt32LE(0x24)) * tables;
  const rootSectors = Math.ceil((rootEntries * 32) / sectorSize);
  const fat32 = shortTable === 0 && tableSectors > 0;
  const clusters = Math.floor((sectors - reserved - tableSectors - rootSectors) / clusterSectors);
  if (clusters < 0 || clusters > (fat32 ? 0x0ffffff6 : 0xfff4)) return undefined;
  return {
    sectorSize,
    clusterSize: clusterSectors * sectorSize,
    sectors,
    fat32,
    afterTables: (reserved + tableSectors) * sectorSize,
    rootEntries,
  };
}

/** Returns the label from the volume's entry in the root directory (with FAT32, from the directory's first cluster). */
function fatLabel(directory: Uint8Array): string | undefined {
  for (let at = 0; at + 32 <= directory.length && directory[at] !== 0; at += 32) {
    const entry = directory.subarray(at, at + 32);
    const attributes = entry[11]! & 0x3f;
    const cluster = entry[20]! | entry[21]! | entry[26]! | entry[27]!;
    if (entry[0] === 0xe5 || cluster !== 0 || attributes === 0x0f) continue;
    if ((attributes & 0x18) === 0x08) return labelText(entry.subarray(0, 11));
  }
  return undefined;
}

async function probeNtfs(
  sector: Buffer,
  readAt: ReadAt,
  deviceSize: number,
): Promise<FilesystemIdentity | undefined> {
  if (sector.toString('latin1', 3, 11) !== 'NTFS    ') return undefined;
  const sectorSize = sector.readUInt16LE(0x0b);
  if (!isPowerOfTwo(sectorSize) || sectorSize < 256 || sectorSize > 4096) return undefined;
  if (sector.readUInt16LE(0x0e) !== 0 || sector[0x10] !== 0 || sector.readUInt16LE(0x16) !== 0)
    return undefined;
  const clusterField = sector[0x0d]!;
  const clusterSize = sectorSize * (clusterField < 240 ? clusterField : 2 ** (256 - clusterField));
  const recordField = sector.readInt8(0x40);
  const recordSize = recordField > 0 ? recordField * clusterSize : 2 ** -recordField;
  const volume = Number(sector.readBigUInt64LE(0x30)) * clusterSize + 3 * recordSize;
  const readable = recordSize <= 65536 && volume + recordSize <= deviceSize;
  return {
    type: 'ntfs',
    uuid: sector.readBigUInt64LE(0x48).toString(16).toUpperCase().padStart(16, '0'),
    label: readable ? ntfsLabel(Buffer.from(await readAt(volume, recordSize))) : undefined,
    blockSize: sectorSize,
    size: Math.min(Number(sector.readBigUInt64LE(0x28)) * sectorSize, deviceSize),
  };
}

/** Returns attribute 0x60 of the file record of $Volume. */
function ntfsLabel(record: Buffer): string | undefined {
  if (record.toString('latin1', 0, 4) !== 'FILE') return undefined;
  for (let at = record.readUInt16LE(0x14); at + 24 <= record.length;) {
    const length = record.readUInt32LE(at + 4);
    if (record.readUInt32LE(at) === 0x60) {
      const from = at + record.readUInt16LE(at + 20);
      const text = record.toString('utf16le', from, from + record.readUInt32LE(at + 16));
      return labelText(Buffer.from(text));
    }
    if (length === 0 || record.readUInt32LE(at) === 0xffffffff) return undefined;
    at += length;
  }
  return undefined;
}

/** Does not read the label, which is in the root directory. */
function probeExfat(sector: Buffer): FilesystemIdentity | undefined {
  if (sector.toString('latin1', 3, 11) !== 'EXFAT   ' || sector[0x6e] === undefined) return undefined;
  const sectorSize = 2 ** sector[0x6c]!;
  return {
    type: 'exfat',
    uuid: serialText(sector.subarray(0x64, 0x68)),
    label: undefined,
    blockSize: sectorSize,
    size: Number(sector.readBigUInt64LE(0x48)) * sectorSize,
  };
}

function serialText(serial: Uint8Array): string {
  const hex = Buffer.from(serial).reverse().toString('hex').toUpperCase();
  return `${hex.slice(0, 4)}-${hex.slice(4)}`;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}
