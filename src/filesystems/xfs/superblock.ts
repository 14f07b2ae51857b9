/**
 * Reads the XFS superblock, versions 4 and 5: geometry, identity, features. Pure: a sector in, values out. The format,
 * and the reasons why some values count as unknown, are in docs/formats/xfs.md.
 */
import { labelText, uuidText } from '../uuid.ts';
import { checksumFault, hex, readUInt64 } from './checksum.ts';

export interface XfsSuperblock {
  /** 1 to 5. Only 4 and 5 are read further. */
  readonly version: number;
  /** Bytes, 512 to 65536. */
  readonly blockSize: number;
  /** Bytes, 512 to 32768. */
  readonly sectorSize: number;
  /** Blocks of the data section, all allocation groups together. */
  readonly blocks: number;
  /** Blocks of every allocation group except the last. */
  readonly agBlocks: number;
  readonly agCount: number;
  readonly agBlockLog: number;
  readonly uuid: string | undefined;
  /** The sixteen bytes of the UUID in metadata. */
  readonly metaUuid: Buffer;
  /** The sixteen bytes of the UUID in log records. */
  readonly rawUuid: Buffer;
  readonly label: string | undefined;
  /** Offset of the log's first byte; undefined if the log is on another device. */
  readonly logOffset: number | undefined;
  /** Bytes. */
  readonly logSize: number;
  /** True if records of the log may have headers of several blocks. */
  readonly logVersion2: boolean;
  /** The block of the root directory's inode, by group and within it. */
  readonly rootInode: { readonly group: number; readonly block: number };
  /** Blocks of the realtime section, which is on another device; 0 if there is none. */
  readonly realtimeBlocks: number;
  readonly inProgress: boolean;
  readonly versionBits: number;
  readonly features2: number;
  readonly roCompat: number;
  readonly incompat: number;
}

/** Bytes of the device that `parseSuperblock` needs. */
export const superblockSize = 264;

const magic = 0x58465342;
const crcOffset = 224;

const incompatKnown = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80;
const incompatMetaUuid = 0x04;
const incompatNames: readonly (readonly [number, string])[] = [
  [0x100, 'metadir'],
  [0x200, 'zoned'],
  [0x400, 'zone gaps'],
];
const incompatNeedsRepair = 0x10;
const roCompatKnown = 0x0f;
const versionShared = 0x0200;
const versionLog2 = 0x0400;
const versionMoreBits = 0x8000;
const features2Known = 0x02 | 0x08 | 0x80 | 0x100 | 0x200;

/** Returns undefined if there is no XFS superblock, or one with an impossible geometry. Does not check the checksum. */
export function parseSuperblock(sector: Buffer): XfsSuperblock | undefined {
  if (sector.length < superblockSize || sector.readUInt32BE(0) !== magic) return undefined;
  const versionBits = sector.readUInt16BE(100);
  const version = versionBits & 0x0f;
  const incompat = version === 5 ? sector.readUInt32BE(216) : 0;
  const agBlockLog = sector.readUInt8(124);
  const blockSize = sector.readUInt32BE(4);
  const logStart = readUInt64(sector, 48);
  const agBlocks = sector.readUInt32BE(84);
  const rawUuid = Buffer.from(sector.subarray(32, 48));
  const superblock: XfsSuperblock = {
    version,
    blockSize,
    sectorSize: sector.readUInt16BE(102),
    blocks: readUInt64(sector, 8),
    agBlocks,
    agCount: sector.readUInt32BE(88),
    agBlockLog,
    uuid: uuidText(rawUuid),
    metaUuid: (incompat & incompatMetaUuid) !== 0 ? Buffer.from(sector.subarray(248, 264)) : rawUuid,
    rawUuid,
    label: labelText(sector.subarray(108, 120)),
    logOffset:
      logStart === 0
        ? undefined
        : (Math.floor(logStart / 2 ** agBlockLog) * agBlocks + (logStart % 2 ** agBlockLog)) * blockSize,
    logSize: sector.readUInt32BE(96) * blockSize,
    logVersion2: version === 5 || (versionBits & versionLog2) !== 0,
    rootInode: inodeBlock(readUInt64(sector, 56), agBlockLog, sector.readUInt8(123)),
    realtimeBlocks: readUInt64(sector, 16),
    inProgress: sector.readUInt8(126) !== 0,
    versionBits,
    features2:
      version === 5 || (versionBits & versionMoreBits) !== 0
        ? (sector.readUInt32BE(200) | sector.readUInt32BE(204)) >>> 0
        : 0,
    roCompat: version === 5 ? sector.readUInt32BE(212) : 0,
    incompat,
  };
  const logs = sector.readUInt8(120) === Math.log2(blockSize);
  return logs && sector.readUInt8(121) === Math.log2(superblock.sectorSize) && plausible(superblock)
    ? superblock
    : undefined;
}

/** Converts an inode number, which holds the group, the block and the place in the block in separate bits. */
function inodeBlock(
  inode: number,
  agBlockLog: number,
  inodesPerBlockLog: number,
): XfsSuperblock['rootInode'] {
  const block = Math.floor(inode / 2 ** inodesPerBlockLog);
  return { group: Math.floor(block / 2 ** agBlockLog), block: block % 2 ** agBlockLog };
}

function plausible(sb: XfsSuperblock): boolean {
  return (
    sb.version >= 1 &&
    sb.version <= 5 &&
    isPowerWithin(sb.blockSize, 512, 65536) &&
    isPowerWithin(sb.sectorSize, 512, Math.min(32768, sb.blockSize)) &&
    sb.agBlocks >= leastAgBlocks &&
    sb.agBlocks * sb.blockSize <= 2 ** 40 &&
    2 ** sb.agBlockLog >= sb.agBlocks &&
    2 ** sb.agBlockLog < sb.agBlocks * 2 &&
    Number.isSafeInteger(sb.blocks * sb.blockSize) &&
    sb.agCount === Math.ceil(sb.blocks / sb.agBlocks) &&
    sb.agCount > 0 &&
    sb.agCount <= mostGroups &&
    groupLength(sb, sb.agCount - 1) > firstBlockAfterHeaders(sb)
  );
}

/** XFS_MIN_AG_BLOCKS. */
const leastAgBlocks = 64;
/** 16 TiB of the smallest groups that mkfs.xfs makes, 1 EiB of the largest. Each group costs a read. */
const mostGroups = 2 ** 20;

function isPowerWithin(value: number, low: number, high: number): boolean {
  return value >= low && value <= high && Number.isInteger(Math.log2(value));
}

/**
 * Returns the difference between two copies of a version 4 superblock, which has no checksum; undefined if there is
 * none.
 */
export function copyFault(sb: XfsSuperblock, copy: XfsSuperblock | undefined): string | undefined {
  if (copy === undefined) return 'XFS superblock: group 1 has no copy of it';
  const fields = ['version', 'blockSize', 'sectorSize', 'agBlocks', 'agBlockLog'] as const;
  const field = fields.find((each) => copy[each] !== sb[each]);
  if (field === undefined) return undefined;
  return `XFS superblock: ${field} is ${sb[field]}, but ${copy[field]} in its copy in group 1`;
}

/** Returns the end of the filesystem in bytes. */
export function filesystemSize(sb: XfsSuperblock): number {
  return sb.blocks * sb.blockSize;
}

/** Returns the length of one allocation group in blocks. Only the last may be shorter. */
export function groupLength(sb: XfsSuperblock, group: number): number {
  return Math.min(sb.agBlocks, sb.blocks - group * sb.agBlocks);
}

/** Returns the first block of an allocation group behind its four header sectors. */
export function firstBlockAfterHeaders(sb: XfsSuperblock): number {
  return Math.floor((3 * sb.sectorSize) / sb.blockSize) + 1;
}

/** Returns true for version 5, whose metadata has checksums and says where it belongs. */
export function hasChecksums(sb: XfsSuperblock): boolean {
  return sb.version === 5;
}

/**
 * Returns why the free-space trees of this filesystem cannot be read; undefined if they can. `sector` is the whole
 * superblock sector (`sectorSize` bytes).
 */
export function superblockFault(sb: XfsSuperblock, sector: Buffer, deviceSize: number): string | undefined {
  if (sb.version !== 4 && sb.version !== 5) return `XFS version ${sb.version} is not known`;
  if (hasChecksums(sb)) {
    const fault = checksumFault(sector, crcOffset);
    if (fault !== undefined) return `XFS superblock: ${fault}`;
  }
  if (sb.inProgress) return 'XFS superblock: mkfs.xfs did not finish';
  if (filesystemSize(sb) > deviceSize)
    return `XFS ends at ${filesystemSize(sb)}, behind the end of its device at ${deviceSize}`;
  if ((sb.incompat & incompatNeedsRepair) !== 0)
    return 'XFS is marked as needing repair (run xfs_repair): its free space is not to be trusted';
  const incompat = sb.incompat & ~incompatKnown;
  if (incompat !== 0) {
    const names = incompatNames.filter(([bit]) => (incompat & bit) !== 0).map(([, name]) => name);
    return `XFS has incompatible features that are not known here: ${[hex(incompat >>> 0), ...names].join(' ')}`;
  }
  const roCompat = sb.roCompat & ~roCompatKnown;
  if (roCompat !== 0)
    return `XFS has read-only compatible features that are not known here: ${hex(roCompat >>> 0)}`;
  if ((sb.versionBits & versionShared) !== 0)
    return `XFS has version bits that are not known here: ${hex(versionShared)}`;
  const features2 = sb.features2 & ~features2Known;
  if (features2 !== 0) return `XFS has features2 bits that are not known here: ${hex(features2 >>> 0)}`;
  if (sb.logOffset !== undefined && sb.logOffset + sb.logSize > filesystemSize(sb))
    return `XFS log ends at ${sb.logOffset + sb.logSize}, behind the end of the filesystem at ${filesystemSize(sb)}`;
  return undefined;
}
