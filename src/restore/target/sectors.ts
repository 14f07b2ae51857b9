/**
 * The largest sectors with which a filesystem can be mounted. The kernel reads and writes whole sectors. So it refuses a
 * filesystem whose own unit is smaller than the sector ("bad block size", "device supports … byte sectors but not …").
 * acquire-destination.ts handles partition tables, which count in sectors.
 */
import type { ReadAt } from '../../block/source.ts';
import type { FilesystemIdentity } from '../../filesystems/used-map.ts';

export interface SectorNeed {
  /** Bytes; undefined if the limit is not known. */
  readonly largest: number | undefined;
  /** A text for messages: `ext4 has blocks of 1024 bytes`. */
  readonly why: string;
}

/** `readAt` reads the image. The offsets are from the kernel: fs/xfs/libxfs/xfs_format.h, fs/btrfs, fs/exfat, fs/ntfs3. */
export async function sectorNeed(
  readAt: ReadAt,
  filesystem: FilesystemIdentity | undefined,
): Promise<SectorNeed> {
  if (filesystem === undefined) return { largest: undefined, why: 'it has no known filesystem' };
  const { type, blockSize } = filesystem;
  const unit = (largest: number | undefined, what: string): SectorNeed => ({
    largest,
    why: `${type} has ${what} of ${largest ?? '?'} bytes`,
  });
  switch (type) {
    case 'ext2':
    case 'ext3':
    case 'ext4':
      return unit(blockSize, 'blocks');
    case 'xfs':
      return unit((await sector(readAt, 0)).readUInt16BE(102), 'sectors');
    case 'vfat':
      return unit((await sector(readAt, 0)).readUInt16LE(11), 'sectors');
    case 'ntfs':
      return unit((await sector(readAt, 0)).readUInt16LE(11), 'sectors');
    case 'exfat':
      return unit(2 ** (await sector(readAt, 0)).readUInt8(108), 'sectors');
    case 'btrfs':
      return unit((await sector(readAt, 65536)).readUInt32LE(144), 'sectors');
    case 'iso9660':
    case 'udf':
      return unit(2048, 'sectors');
    case 'f2fs':
    case 'swap':
      return unit(4096, 'blocks');
    default:
      return { largest: undefined, why: `the sectors that ${type} needs are not known` };
  }
}

async function sector(readAt: ReadAt, offset: number): Promise<Buffer> {
  return Buffer.from(await readAt(offset, 512));
}
