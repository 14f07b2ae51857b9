/**
 * The superblock of ext2/3/4: converts bytes to geometry and identity, and checks them in one flat list that names the
 * fault. Layout: docs/formats/ext.md. Numbers are blocks unless the name says bytes.
 */
import { crc32c } from '../../base/crc32c.ts';
import { labelText, uuidText } from '../uuid.ts';
import type { FilesystemIdentity, MountState } from '../used-map.ts';
import { type FeatureSet, compat, extType, incompat, roCompat, unknownFeatures } from './features.ts';

export const superblockOffset = 1024;
export const superblockLength = 1024;

export interface ExtSuperblock {
  readonly features: FeatureSet;
  readonly identity: FilesystemIdentity;
  readonly uuid: Uint8Array;
  /** Bytes. */
  readonly blockSize: number;
  readonly blocks: number;
  readonly blocksHigh: number;
  readonly firstDataBlock: number;
  readonly blocksPerGroup: number;
  /** Blocks per bit of the bitmaps: 1 without bigalloc. */
  readonly clusterBlocks: number;
  readonly clustersPerGroup: number;
  readonly groups: number;
  readonly inodes: number;
  readonly inodesPerGroup: number;
  /** Bytes. */
  readonly inodeSize: number;
  /** Blocks of one group's inode table. */
  readonly inodeTableBlocks: number;
  /** Bytes of a group descriptor. */
  readonly descriptorSize: number;
  readonly descriptorsPerBlock: number;
  /** Blocks of the whole descriptor table. */
  readonly descriptorBlocks: number;
  readonly reservedDescriptorBlocks: number;
  /** The first block of the descriptor table that is in its own metagroup; undefined without meta_bg. */
  readonly firstMetaGroup: number | undefined;
  /** The groups that have copies of the superblock. */
  readonly backups: 'all' | 'sparse' | readonly [number, number];
  /** The checksum of descriptors. Bitmaps are checked only with crc32c. */
  readonly checksum: 'none' | 'crc16' | 'crc32c';
  /** CRC register at the start of descriptors and bitmaps. */
  readonly checksumSeed: number;
  readonly checksumType: number;
  /** As stored and as calculated; equal if the filesystem has no checksum. */
  readonly storedChecksum: number;
  readonly computedChecksum: number;
  readonly state: number;
  /** Undefined if the filesystem has no journal or has it inside. */
  readonly externalJournal: string | undefined;
}

/** Returns undefined if the magic number is missing. Checks nothing else: see `superblockProblem`. */
export function parseSuperblock(bytes: Uint8Array): ExtSuperblock | undefined {
  const sb = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (sb.length < superblockLength || sb.readUInt16LE(0x38) !== 0xef53) return undefined;
  const features: FeatureSet = {
    compat: sb.readUInt32LE(0x5c),
    incompat: sb.readUInt32LE(0x60),
    roCompat: sb.readUInt32LE(0x64),
  };
  const has64bit = (features.incompat & incompat['64bit']) !== 0;
  const bigalloc = (features.roCompat & roCompat.bigalloc) !== 0;
  const metadataChecksum = (features.roCompat & roCompat.metadata_csum) !== 0;

  const uuid = sb.subarray(0x68, 0x78);
  const blockSize = 1024 * 2 ** Math.min(sb.readUInt32LE(0x18), 31);
  const blocksHigh = sb.readUInt32LE(0x150);
  const blocks = sb.readUInt32LE(0x04) + (has64bit ? blocksHigh * 2 ** 32 : 0);
  const firstDataBlock = sb.readUInt32LE(0x14);
  const blocksPerGroup = sb.readUInt32LE(0x20);
  const clusterBlocks = bigalloc
    ? 2 ** (Math.min(sb.readUInt32LE(0x1c), 31) - Math.log2(blockSize / 1024))
    : 1;
  const groups = Math.ceil((blocks - firstDataBlock) / blocksPerGroup);
  const inodesPerGroup = sb.readUInt32LE(0x28);
  const inodeSize = sb.readUInt32LE(0x4c) === 0 ? 128 : sb.readUInt16LE(0x58);
  const descriptorSize = has64bit ? sb.readUInt16LE(0xfe) : 32;
  const descriptorsPerBlock = Math.floor(blockSize / descriptorSize);
  const journalElsewhere = (features.compat & compat.has_journal) !== 0 && sb.readUInt32LE(0xe0) === 0;
  const storedChecksum = sb.readUInt32LE(0x3fc);

  return {
    features,
    identity: {
      type: extType(features, sb.readUInt32LE(0x160)),
      uuid: uuidText(uuid),
      label: labelText(sb.subarray(0x78, 0x88)),
      blockSize,
      size: blocks * blockSize,
    },
    uuid,
    blockSize,
    blocks,
    blocksHigh,
    firstDataBlock,
    blocksPerGroup,
    clusterBlocks,
    clustersPerGroup: bigalloc ? sb.readUInt32LE(0x24) : blocksPerGroup,
    groups,
    inodes: sb.readUInt32LE(0x00),
    inodesPerGroup,
    inodeSize,
    inodeTableBlocks: Math.ceil((inodesPerGroup * inodeSize) / blockSize),
    descriptorSize,
    descriptorsPerBlock,
    descriptorBlocks: Math.ceil(groups / descriptorsPerBlock),
    reservedDescriptorBlocks: sb.readUInt16LE(0xce),
    firstMetaGroup: features.incompat & incompat.meta_bg ? sb.readUInt32LE(0x104) : undefined,
    backups: backupsOf(sb, features),
    checksum: metadataChecksum ? 'crc32c' : features.roCompat & roCompat.uninit_bg ? 'crc16' : 'none',
    checksumSeed:
      features.incompat & incompat.metadata_csum_seed ? sb.readUInt32LE(0x270) : ~crc32c(uuid) >>> 0,
    checksumType: sb[0x175]!,
    storedChecksum,
    computedChecksum: metadataChecksum ? ~crc32c(sb.subarray(0, 0x3fc)) >>> 0 : storedChecksum,
    state: sb.readUInt16LE(0x3a),
    externalJournal: journalElsewhere ? (uuidText(sb.subarray(0xd0, 0xe0)) ?? 'unknown') : undefined,
  };
}

function backupsOf(sb: Buffer, features: FeatureSet): ExtSuperblock['backups'] {
  if (features.compat & compat.sparse_super2) return [sb.readUInt32LE(0x24c), sb.readUInt32LE(0x250)];
  return features.roCompat & roCompat.sparse_super ? 'sparse' : 'all';
}

/**
 * Returns why the bitmaps of this filesystem are not reliable; undefined if the superblock shows no reason.
 * `deviceSize` in bytes.
 */
export function superblockProblem(
  sb: ExtSuperblock,
  deviceSize: number,
  state: MountState,
): string | undefined {
  if (sb.storedChecksum !== sb.computedChecksum)
    return `superblock: checksum ${hex(sb.computedChecksum)}, but ${hex(sb.storedChecksum)} is stored`;
  const unknown = unknownFeatures(sb.features);
  if (unknown.length > 0) return `unknown ${unknown.join(', unknown ')}`;
  if (sb.identity.type === 'jbd') return 'it is the external journal of another filesystem';
  return geometryProblem(sb, deviceSize) ?? stateProblem(sb, state);
}

function geometryProblem(sb: ExtSuperblock, deviceSize: number): string | undefined {
  const { blockSize, clusterBlocks, clustersPerGroup, blocksPerGroup, descriptorSize } = sb;
  if (blockSize > 65536) return `superblock: block size ${blockSize}, more than 65536`;
  if (sb.checksum === 'crc32c' && sb.checksumType !== 1)
    return `superblock: checksum type ${sb.checksumType}, only 1 (crc32c) is known`;
  if (!Number.isInteger(clusterBlocks))
    return `superblock: clusters of ${clusterBlocks * blockSize} bytes, smaller than a block of ${blockSize}`;
  if (clustersPerGroup * clusterBlocks !== blocksPerGroup)
    return `superblock: ${blocksPerGroup} blocks per group, but ${clustersPerGroup} clusters of ${clusterBlocks}`;
  if (clustersPerGroup < 8 || clustersPerGroup > 8 * blockSize || clustersPerGroup % 8 !== 0)
    return `superblock: ${clustersPerGroup} clusters per group, a bitmap block has ${8 * blockSize} bits`;
  if (!(descriptorSize >= 32 && descriptorSize <= 1024 && Number.isInteger(Math.log2(descriptorSize))))
    return `superblock: group descriptors of ${descriptorSize} bytes`;
  if (descriptorSize < 64 && sb.features.incompat & incompat['64bit'])
    return `superblock: group descriptors of ${descriptorSize} bytes, 64bit needs 64`;
  if (blocks32(sb)) return `superblock: ${sb.blocksHigh} times 2^32 blocks without the feature 64bit`;
  const firstDataBlock = blockSize * clusterBlocks === 1024 ? 1 : 0;
  if (sb.firstDataBlock !== firstDataBlock || firstDataBlock >= sb.blocks)
    return `superblock: first data block ${sb.firstDataBlock} of ${sb.blocks}, ${firstDataBlock} is right for blocks of ${blockSize} bytes`;
  // 2 PiB of 4 KiB blocks. A larger number is not a real filesystem, and would cost memory.
  if (sb.groups > mostGroups) return `superblock: ${sb.groups} groups, more than ${mostGroups}`;
  if (sb.inodesPerGroup === 0 || sb.groups * sb.inodesPerGroup !== sb.inodes)
    return `superblock: ${sb.inodes} inodes, but ${sb.groups} groups of ${sb.inodesPerGroup}`;
  // The kernel's bounds: a block holds the bitmap of a group's inodes, and at least one inode.
  if (sb.inodesPerGroup > 8 * blockSize)
    return `superblock: ${sb.inodesPerGroup} inodes per group, a bitmap block has ${8 * blockSize} bits`;
  if (sb.inodeSize < 128 || sb.inodeSize > blockSize || !Number.isInteger(Math.log2(sb.inodeSize)))
    return `superblock: inodes of ${sb.inodeSize} bytes in blocks of ${blockSize}`;
  if (sb.firstMetaGroup !== undefined && sb.firstMetaGroup > sb.descriptorBlocks)
    return `superblock: first metagroup ${sb.firstMetaGroup}, but ${sb.descriptorBlocks} descriptor blocks`;
  if (sb.blocks * blockSize > deviceSize)
    return `the filesystem has ${sb.blocks * blockSize} bytes, but the device ${deviceSize}`;
  return undefined;
}

function blocks32(sb: ExtSuperblock): boolean {
  return sb.blocksHigh !== 0 && (sb.features.incompat & incompat['64bit']) === 0;
}

function stateProblem(sb: ExtSuperblock, state: MountState): string | undefined {
  if (state === 'live') return undefined;
  if (sb.state & stateErrors) return 'the kernel has seen errors in it (run e2fsck)';
  if (sb.features.incompat & incompat.needs_recovery)
    return 'its journal needs recovery: blocks allocated there are not in the bitmaps yet (mount it once, or run e2fsck)';
  const journal = (sb.features.compat & compat.has_journal) !== 0;
  if (state === 'idle' && !journal && !(sb.state & stateClean))
    return 'it has no journal and was not cleanly unmounted (run e2fsck)';
  return undefined;
}

const mostGroups = 2 ** 24;
const stateClean = 1;
const stateErrors = 2;

export function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
