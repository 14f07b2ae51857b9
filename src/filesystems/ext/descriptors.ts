/**
 * Reads the group descriptors of ext2/3/4 from any place of the table (in one piece, or a block per metagroup), checks
 * and decodes them. Layout: docs/formats/ext.md.
 */
import { crc16 } from '../../base/crc16.ts';
import { crc32c } from '../../base/crc32c.ts';
import { AgentError } from '../../base/errors.ts';
import type { ReadAt } from '../../block/source.ts';
import { descriptorBlock } from './layout.ts';
import { type ExtSuperblock, hex } from './superblock.ts';

export interface GroupDescriptor {
  readonly group: number;
  /** Block numbers. */
  readonly blockBitmap: number;
  readonly inodeBitmap: number;
  readonly inodeTable: number;
  readonly freeClusters: number;
  /** True if the block bitmap is not on disk. */
  readonly uninitialised: boolean;
  /** CRC-32C register of the block bitmap, or its low half: see `bitmapChecksumMask`. */
  readonly bitmapChecksum: number;
  /** The fault in the descriptor, for the user. */
  readonly problem: string | undefined;
  /** Its bytes on disk. */
  readonly raw: Uint8Array;
}

/**
 * Reads the descriptors of `count` groups from `first`. Throws FILESYSTEM_UNREADABLE if the place of the table is
 * impossible.
 */
export async function readDescriptors(
  sb: ExtSuperblock,
  readAt: ReadAt,
  first: number,
  count: number,
): Promise<GroupDescriptor[]> {
  const firstBlock = Math.floor(first / sb.descriptorsPerBlock);
  const endBlock = Math.ceil((first + count) / sb.descriptorsPerBlock);
  const blocks = await readTableBlocks(sb, readAt, firstBlock, endBlock);
  const descriptors: GroupDescriptor[] = [];
  for (let group = first; group < first + count; group++) {
    const block = blocks[Math.floor(group / sb.descriptorsPerBlock) - firstBlock]!;
    const at = (group % sb.descriptorsPerBlock) * sb.descriptorSize;
    descriptors.push(parseDescriptor(sb, group, block.subarray(at, at + sb.descriptorSize)));
  }
  return descriptors;
}

/** Reads blocks `[from, to)` of the table. Blocks that are adjacent on disk are read at once. */
export async function readTableBlocks(
  sb: ExtSuperblock,
  readAt: ReadAt,
  from: number,
  to: number,
): Promise<Buffer[]> {
  const reads: Promise<Buffer[]>[] = [];
  for (let index = from; index < to;) {
    const start = descriptorBlock(sb, index);
    let count = 1;
    while (index + count < to && descriptorBlock(sb, index + count) === start + count) count++;
    if (start + count > sb.blocks)
      throw new AgentError(
        'FILESYSTEM_UNREADABLE',
        `descriptor table reaches to block ${start + count}, but the filesystem has ${sb.blocks}`,
      );
    reads.push(readBlocks(sb, readAt, start, count));
    index += count;
  }
  return (await Promise.all(reads)).flat();
}

async function readBlocks(
  sb: ExtSuperblock,
  readAt: ReadAt,
  start: number,
  count: number,
): Promise<Buffer[]> {
  const bytes = await readAt(start * sb.blockSize, count * sb.blockSize);
  return Array.from({ length: count }, (_, i) =>
    Buffer.from(bytes.buffer, bytes.byteOffset + i * sb.blockSize, sb.blockSize),
  );
}

/** Decodes and checks the descriptor of a group. */
export function parseDescriptor(sb: ExtSuperblock, group: number, raw: Buffer): GroupDescriptor {
  const large = sb.descriptorSize >= 64;
  const number = (low: number, high: number): number =>
    raw.readUInt32LE(low) + (large ? raw.readUInt32LE(high) * 2 ** 32 : 0);
  const blockBitmap = number(0x00, 0x20);
  const inodeBitmap = number(0x04, 0x24);
  const inodeTable = number(0x08, 0x28);
  return {
    group,
    blockBitmap,
    inodeBitmap,
    inodeTable,
    freeClusters: raw.readUInt16LE(0x0c) + (large ? raw.readUInt16LE(0x2c) * 65536 : 0),
    uninitialised: sb.checksum !== 'none' && (raw.readUInt16LE(0x12) & blockUninitialised) !== 0,
    bitmapChecksum: raw.readUInt16LE(0x18) + (large ? raw.readUInt16LE(0x38) * 65536 : 0),
    problem:
      checksumProblem(sb, group, raw) ??
      placeProblem(sb, group, 'block bitmap', blockBitmap, 1) ??
      placeProblem(sb, group, 'inode bitmap', inodeBitmap, 1) ??
      placeProblem(sb, group, 'inode table', inodeTable, sb.inodeTableBlocks),
    raw,
  };
}

/** Returns the mask of the bitmap checksum: descriptors of 32 bytes hold only its low half. */
export function bitmapChecksumMask(sb: ExtSuperblock): number {
  return sb.descriptorSize >= 64 ? 0xffffffff : 0xffff;
}

function checksumProblem(sb: ExtSuperblock, group: number, raw: Buffer): string | undefined {
  if (sb.checksum === 'none') return undefined;
  const stored = raw.readUInt16LE(checksumOffset);
  const computed = descriptorChecksum(sb, group, raw);
  if (stored === computed) return undefined;
  return `group ${group}: descriptor checksum ${hex(computed)}, but ${hex(stored)} is stored`;
}

/** Returns the checksum that `raw` should store. */
function descriptorChecksum(sb: ExtSuperblock, group: number, raw: Uint8Array): number {
  const covered = scratch.subarray(0, 4 + sb.descriptorSize);
  covered.writeUInt32LE(group);
  covered.set(raw, 4);
  if (sb.checksum === 'crc32c') {
    covered.writeUInt16LE(0, 4 + checksumOffset);
    return ~crc32c(covered, ~sb.checksumSeed >>> 0) & 0xffff;
  }
  const before = crc16(covered.subarray(0, 4 + checksumOffset), crc16(sb.uuid, 0xffff));
  return crc16(covered.subarray(4 + checksumOffset + 2), before);
}

/** Room for a group number and the largest descriptor. A buffer for each of a million descriptors would cost memory. */
const scratch = Buffer.alloc(4 + 1024);

function placeProblem(
  sb: ExtSuperblock,
  group: number,
  what: string,
  start: number,
  count: number,
): string | undefined {
  if (start > sb.firstDataBlock && start + count <= sb.blocks) return undefined;
  return `group ${group}: ${what} at block ${start}, but the filesystem has ${sb.blocks} blocks`;
}

const checksumOffset = 0x1e;
const blockUninitialised = 0x2;
