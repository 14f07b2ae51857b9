/**
 * Moves a GPT to the end of a disk that is larger than the one it was made for. The backup header and its entries
 * belong in the last sectors. Both headers give the place of the other and the limit for partitions (UEFI specification
 * 2.10, 5.3.2). Without the move the disk works, but every tool complains, and the additional space cannot be used.
 */
import { crc32 } from 'node:zlib';
import { alignUp } from '../../base/bytes.ts';
import type { ReadAt } from '../../block/source.ts';
import { type GptHeader, readGptHeader } from './gpt.ts';
import { isProtective, parseMbr } from './mbr.ts';

export interface SectorWrite {
  /** Bytes; offset and length are multiples of the sector size. */
  readonly offset: number;
  readonly data: Buffer;
}

export interface GptMove {
  /** In the order in which they must be made: an interruption at any point leaves at least one valid header. */
  readonly writes: readonly SectorWrite[];
  /** For the user: why the table cannot be moved, or which header was made from the other. */
  readonly warnings: readonly string[];
}

/**
 * Returns the writes that adapt the table of the first `imageSize` bytes to a disk of `diskSize`. Undefined if there is
 * no GPT or the disk is not larger. All sizes in bytes. Throws the errors of `readAt`.
 */
export async function moveGptBackup(
  readAt: ReadAt,
  imageSize: number,
  diskSize: number,
  sectorSize: number,
): Promise<GptMove | undefined> {
  const oldLast = Math.floor(imageSize / sectorSize) - 1;
  const newLast = Math.floor(diskSize / sectorSize) - 1;
  if (newLast <= oldLast || oldLast < 4) return undefined;
  const bootSector = Buffer.from(await readAt(0, sectorSize));
  const mbr = parseMbr(bootSector.subarray(0, 512));
  if (mbr === undefined || !isProtective(mbr)) return undefined;

  const primary = await readGptHeader(readAt, sectorSize, 1, oldLast);
  const backup = await readGptHeader(readAt, sectorSize, oldLast, oldLast);
  if (typeof primary === 'string' && typeof backup === 'string') {
    const warning = `the partition table was not moved to the new end: primary header: ${primary}; backup: ${backup}`;
    return { writes: [], warnings: [warning] };
  }
  const good = typeof primary === 'string' ? (backup as GptHeader) : primary;
  const warnings =
    typeof primary === 'string'
      ? [`the primary partition table was rebuilt from its backup: ${primary}`]
      : [];

  const entries = Buffer.alloc(alignUp(good.entries.length, sectorSize));
  good.entries.copy(entries);
  const entrySectors = entries.length / sectorSize;
  const lastUsable = newLast - entrySectors - 1;
  const entriesOfPrimary = typeof primary === 'string' ? 2 : Number(primary.sector.readBigUInt64LE(72));
  const header = (self: number, other: number, entriesAt: number): Buffer =>
    headerWith(good.sector, { self, other, entriesAt, lastUsable });

  const writes: SectorWrite[] = [
    { offset: (newLast - entrySectors) * sectorSize, data: entries },
    { offset: newLast * sectorSize, data: header(newLast, 1, newLast - entrySectors) },
    ...(typeof primary === 'string' ? [{ offset: entriesOfPrimary * sectorSize, data: entries }] : []),
    { offset: sectorSize, data: header(1, newLast, entriesOfPrimary) },
  ];
  const protective = protectiveUpTo(bootSector, oldLast, newLast);
  if (protective !== undefined) writes.push({ offset: 0, data: protective });
  // Tools that search for a backup would use the old one.
  if (typeof backup !== 'string' && oldLast < newLast - entrySectors)
    writes.push({ offset: oldLast * sectorSize, data: Buffer.alloc(sectorSize) });
  return { writes, warnings };
}

function headerWith(
  original: Buffer,
  fields: { self: number; other: number; entriesAt: number; lastUsable: number },
): Buffer {
  const header = Buffer.from(original);
  header.writeBigUInt64LE(BigInt(fields.self), 24);
  header.writeBigUInt64LE(BigInt(fields.other), 32);
  header.writeBigUInt64LE(BigInt(fields.lastUsable), 48);
  header.writeBigUInt64LE(BigInt(fields.entriesAt), 72);
  header.writeUInt32LE(0, 16);
  header.writeUInt32LE(crc32(header.subarray(0, header.readUInt32LE(12))), 16);
  return header;
}

/** Returns the boot sector whose protective partition (type EE) covers the larger disk; undefined if it is a hybrid. */
function protectiveUpTo(bootSector: Buffer, oldLast: number, newLast: number): Buffer | undefined {
  const largest = 0xffffffff;
  for (let at = 446; at < 510; at += 16) {
    if (bootSector[at + 4] !== 0xee || bootSector.readUInt32LE(at + 8) !== 1) continue;
    const sectors = bootSector.readUInt32LE(at + 12);
    // Some tools always write the largest number. A shorter partition belongs to a hybrid, with other partitions behind
    // it.
    if (sectors !== Math.min(oldLast, largest)) continue;
    const changed = Buffer.from(bootSector);
    changed.writeUInt32LE(Math.min(newLast, largest), at + 12);
    return changed;
  }
  return undefined;
}
