/**
 * Builds an XFS filesystem from scratch, for tests: superblock, AGFs, free-space trees of any depth and a log
 * with an unmount record. It is stored sparsely, so 100 TiB need no more memory than their metadata.
 *
 * test/integration/xfs-used-map.test.ts compares the result with xfs_db. So tests over it do not only repeat
 * the reader's own view.
 */
import { crc32c } from '../../src/base/crc32c.ts';
import type { ReadAt } from '../../src/block/source.ts';

export interface SyntheticOptions {
  readonly version?: 4 | 5;
  readonly blockSize?: number;
  readonly sectorSize?: number;
  readonly agBlocks?: number;
  /** Blocks of the filesystem. */
  readonly blocks?: number;
  /**
   * Returns the free extents of a group as [first block, blocks]. Default: all blocks behind the metadata.
   */
  readonly free?: (group: number, length: number) => readonly (readonly [number, number])[];
  /** Children and records in a tree block. Default: as many as fit. */
  readonly fanout?: number;
}

export interface SyntheticXfs {
  readonly size: number;
  readonly blockSize: number;
  readonly agBlocks: number;
  /** Blocks of metadata at the start of each group, which free extents must not include. */
  readonly reserved: number;
  readonly readAt: ReadAt;
  /** Pieces that are not zeros, by offset. */
  readonly pieces: ReadonlyMap<number, Buffer>;
  /** Byte offset of each tree block, root first, by group. */
  readonly treeBlocks: ReadonlyMap<number, readonly number[]>;
  /** Corrects the checksum of an altered v5 piece: `sb`, `agf` or `tree`. */
  seal(offset: number, kind: keyof typeof crcOffsets): void;
}

const crcOffsets = { sb: 224, agf: 216, tree: 52 };
const uuid = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
/** The tree has its blocks within the first blocks of the group. The log (in group 0) follows them. */
const logBytes = 2 * 1024 * 1024;
/** Blocks for both trees. */
const treeRoom = 160;
const noBlock = 0xffffffff;

export function syntheticXfs(options: SyntheticOptions = {}): SyntheticXfs {
  const { version = 5, blockSize = 4096, sectorSize = 512, agBlocks = 16384, blocks = 40000 } = options;
  const headerBlocks = Math.floor((3 * sectorSize) / blockSize) + 1;
  const logBlocks = logBytes / blockSize;
  const reserved = headerBlocks + treeRoom + logBlocks;
  const agCount = Math.ceil(blocks / agBlocks);
  const agBlockLog = Math.ceil(Math.log2(agBlocks));
  const pieces = new Map<number, Buffer>();
  const treeBlocks = new Map<number, number[]>();
  const seal = (offset: number, kind: keyof typeof crcOffsets): void => {
    const piece = pieces.get(offset)!;
    piece.writeUInt32LE(0, crcOffsets[kind]);
    piece.writeUInt32LE(crc32c(piece), crcOffsets[kind]);
  };

  for (let group = 0; group < agCount; group++) {
    const start = group * agBlocks * blockSize;
    const length = Math.min(agBlocks, blocks - group * agBlocks);
    const free = options.free?.(group, length) ?? [[reserved, length - reserved] as const];
    pieces.set(start, superblock());
    if (version === 5) seal(start, 'sb');
    const tree = buildTree(group, free, 'B', headerBlocks);
    const bySize = [...free].sort((a, b) => a[1] - b[1] || a[0] - b[0]);
    const second = buildTree(group, bySize, 'C', tree.root + 1);
    treeBlocks.set(group, tree.offsets);
    const agf = Buffer.alloc(sectorSize);
    agf.write('XAGF');
    agf.writeUInt32BE(1, 4);
    agf.writeUInt32BE(group, 8);
    agf.writeUInt32BE(length, 12);
    agf.writeUInt32BE(tree.root, 16);
    agf.writeUInt32BE(second.root, 20);
    agf.writeUInt32BE(tree.levels, 28);
    agf.writeUInt32BE(second.levels, 32);
    agf.writeUInt32BE(1, 40);
    agf.writeUInt32BE(
      free.reduce((sum, [, count]) => sum + count, 0),
      52,
    );
    if (version === 5) uuid.copy(agf, 64);
    pieces.set(start + sectorSize, agf);
    if (version === 5) seal(start + sectorSize, 'agf');
    // An empty AGFL, so that tools can read it.
    const agfl = Buffer.alloc(sectorSize, 0xff);
    if (version === 5) {
      agfl.write('XAFL');
      agfl.writeUInt32BE(group, 4);
      uuid.copy(agfl, 8);
      agfl.fill(0, 24, 36);
      agfl.writeUInt32LE(crc32c(agfl), 32);
    }
    pieces.set(start + 3 * sectorSize, agfl);
  }
  writeLog((headerBlocks + treeRoom) * blockSize);
  return {
    size: blocks * blockSize,
    blockSize,
    agBlocks,
    reserved,
    readAt: sparseReader(pieces, blocks * blockSize),
    pieces,
    treeBlocks,
    seal,
  };

  function superblock(): Buffer {
    const sb = Buffer.alloc(sectorSize);
    sb.write('XFSB');
    sb.writeUInt32BE(blockSize, 4);
    sb.writeBigUInt64BE(BigInt(blocks), 8);
    uuid.copy(sb, 32);
    sb.writeBigUInt64BE(BigInt(headerBlocks + treeRoom), 48);
    sb.writeUInt32BE(1, 80);
    sb.writeUInt32BE(agBlocks, 84);
    sb.writeUInt32BE(agCount, 88);
    sb.writeUInt32BE(logBlocks, 96);
    sb.writeUInt16BE(0xb4a0 + version, 100);
    sb.writeUInt16BE(sectorSize, 102);
    sb.writeUInt16BE(512, 104);
    sb.writeUInt16BE(blockSize / 512, 106);
    sb.write('synthetic', 108);
    sb.set([Math.log2(blockSize), Math.log2(sectorSize), 9, Math.log2(blockSize / 512), agBlockLog], 120);
    sb.writeUInt32BE(version === 5 ? 0x18a : 0x8a, 200);
    sb.writeUInt32BE(version === 5 ? 0x18a : 0x8a, 204);
    if (version === 5) sb.writeUInt32BE(1, 216);
    return sb;
  }

  function buildTree(
    group: number,
    free: readonly (readonly [number, number])[],
    order: 'B' | 'C',
    from: number,
  ): { root: number; levels: number; offsets: number[] } {
    const header = version === 5 ? 56 : 16;
    const fits = Math.floor((blockSize - header) / 8);
    const mostChildren = Math.floor((blockSize - header) / 12);
    let next = from;
    const offsets: number[] = [];
    let entries: readonly (readonly [number, number])[] = free;
    for (let level = 0; ; level++) {
      const per = Math.min(options.fanout ?? Infinity, level === 0 ? fits : mostChildren);
      const count = Math.max(1, Math.ceil(entries.length / per));
      const parents: [number, number][] = [];
      for (let i = 0; i < count; i++) {
        const mine = entries.slice(i * per, (i + 1) * per);
        const block = next + i;
        const data = Buffer.alloc(blockSize);
        data.write(`AB${version === 5 ? '3' : 'T'}${order}`);
        data.writeUInt16BE(level, 4);
        data.writeUInt16BE(mine.length, 6);
        data.writeUInt32BE(i === 0 ? noBlock : block - 1, 8);
        data.writeUInt32BE(i === count - 1 ? noBlock : block + 1, 12);
        mine.forEach(([first, second], at) => {
          data.writeUInt32BE(first, header + at * 8);
          if (level === 0) data.writeUInt32BE(second, header + at * 8 + 4);
          else data.writeUInt32BE(second, header + mostChildren * 8 + at * 4);
        });
        const offset = (group * agBlocks + block) * blockSize;
        pieces.set(offset, data);
        offsets.unshift(offset);
        if (version === 5) {
          data.writeBigUInt64BE(BigInt(offset / 512), 16);
          uuid.copy(data, 32);
          data.writeUInt32BE(group, 48);
          seal(offset, 'tree');
        }
        parents.push([mine[0]?.[0] ?? 0, block]);
      }
      next += count;
      if (count === 1) return { root: next - 1, levels: level + 1, offsets };
      entries = parents;
    }
  }

  function writeLog(offset: number): void {
    const record = Buffer.alloc(1024);
    record.writeUInt32BE(0xfeedbabe, 0);
    record.writeUInt32BE(1, 4);
    record.writeUInt32BE(2, 8);
    record.writeUInt32BE(512, 12);
    record.writeUInt32BE(1, 16);
    record.writeUInt32BE(1, 24);
    record.writeUInt32BE(1, 40);
    record.writeUInt32BE(1, 300);
    uuid.copy(record, 304);
    record.writeUInt32BE(32768, 320);
    record.writeUInt32BE(1, 512);
    record.writeUInt32BE(8, 516);
    record.set([0xaa, 0x20], 520);
    pieces.set(offset, record);
  }
}

/**
 * Returns a reader of a map of pieces with zeros between. Pieces begin at multiples of 512 and are at most 64
 * KiB.
 */
export function sparseReader(pieces: ReadonlyMap<number, Buffer>, size: number): ReadAt {
  return (offset, length) => {
    if (offset + length > size) return Promise.reject(new RangeError(`${offset}+${length} of ${size}`));
    const result = Buffer.alloc(length);
    const first = Math.max(0, Math.floor(offset / 512) * 512 - 65536);
    for (let at = first; at < offset + length; at += 512) {
      const piece = pieces.get(at);
      if (piece === undefined) continue;
      const from = Math.max(0, offset - at);
      if (from < piece.length) piece.copy(result, Math.max(0, at - offset), from);
    }
    return Promise.resolve(result);
  };
}
