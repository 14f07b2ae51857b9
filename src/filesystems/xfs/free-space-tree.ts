/**
 * Walks the free-space tree of one XFS allocation group in order of block number, some blocks of one level at
 * a time, so that memory is bounded by levels, not by extents. Everything that must hold between blocks is
 * checked on the way; levels count down and extents only grow, so no chain of bad pointers can loop.
 */
import { isReadError } from '../../block/read-errors.ts';
import type { ReadAt } from '../../block/source.ts';
import { type FreeSpaceRoot, unreadable } from './allocation-group.ts';
import { asBuffer } from './checksum.ts';
import { noBlock, parseFreeSpaceBlock, placeName } from './free-space-block.ts';
import { firstBlockAfterHeaders, type XfsSuperblock } from './superblock.ts';

export interface TreeReader {
  readonly sb: XfsSuperblock;
  readonly readAt: ReadAt;
  readonly signal: AbortSignal | undefined;
  /** Also what a running filesystem may have written in parts: sibling chain, keys, the sum. */
  readonly strict: boolean;
  /** The first bytes of the group, where they were read already. */
  readonly head: { readonly data: Buffer; readonly offset: number };
}

/** Bytes of tree blocks that are read at a time, per level. */
const batchBytes = 1024 * 1024;
const batchBlocks = 64;

/**
 * The free extents of the group as pairs of first block and number of blocks (inside the group), one array a
 * leaf. Throws FILESYSTEM_UNREADABLE.
 */
export async function* freeExtents(reader: TreeReader, agf: FreeSpaceRoot): AsyncGenerator<Uint32Array> {
  const walk: Walk = {
    ...reader,
    agf,
    lastAtLevel: [],
    end: firstBlockAfterHeaders(reader.sb),
    sum: 0,
  };
  yield* level(walk, agf.levels - 1, Uint32Array.of(noBlock, agf.root));
  if (!reader.strict) return;
  for (const last of walk.lastAtLevel)
    if (last.rightSibling !== noBlock)
      throw unreadable(
        `XFS allocation group ${agf.group}: the free-space tree ends with block ${last.block}, whose right sibling is ${last.rightSibling}`,
      );
  if (walk.sum !== agf.freeBlocks)
    throw unreadable(
      `XFS allocation group ${agf.group}: the free-space tree holds ${walk.sum} blocks, the AGF says ${agf.freeBlocks}`,
    );
}

interface Walk extends TreeReader {
  readonly agf: FreeSpaceRoot;
  /** The last block seen at each level, from the leaves up. */
  readonly lastAtLevel: { block: number; rightSibling: number }[];
  /** End of the last extent. */
  end: number;
  /** Blocks in the extents so far. */
  sum: number;
}

/** Walks the blocks that `parents` (pairs of key and block) name, all at `depth`, and all below them. */
async function* level(walk: Walk, depth: number, parents: Uint32Array): AsyncGenerator<Uint32Array> {
  const step = Math.max(1, Math.min(batchBlocks, Math.floor(batchBytes / walk.sb.blockSize))) * 2;
  for (let from = 0; from < parents.length; from += step) {
    walk.signal?.throwIfAborted();
    const batch = parents.subarray(from, from + step);
    const data = await readBlocks(walk, depth, batch);
    for (let i = 0; i < data.length; i++) {
      const pairs = check(walk, depth, batch[i * 2]!, batch[i * 2 + 1]!, data[i]!);
      if (depth > 0) yield* level(walk, depth - 1, pairs);
      else if (pairs.length > 0) yield pairs;
    }
  }
}

/** Parses a block and holds it to what came before it. */
function check(walk: Walk, depth: number, key: number, block: number, data: Buffer): Uint32Array {
  const { group, length } = walk.agf;
  const place = { group, length, block, level: depth };
  const isRoot = depth === walk.agf.levels - 1;
  const parsed = parseFreeSpaceBlock(data, walk.sb, place, isRoot);
  const fail = (text: string): never => {
    throw unreadable(`${placeName(place)}: ${text}`);
  };
  if (walk.strict) {
    const first = parsed.pairs[0];
    if (!isRoot && first !== key) fail(`it begins with block ${first ?? 'none'}, its parent says ${key}`);
    const last = walk.lastAtLevel[depth];
    if (parsed.leftSibling !== (last?.block ?? noBlock))
      fail(`its left sibling is ${parsed.leftSibling}, and ${last?.block ?? noBlock} comes before it`);
    if (last !== undefined && last.rightSibling !== block)
      fail(`block ${last.block} before it has right sibling ${last.rightSibling}`);
    walk.lastAtLevel[depth] = { block, rightSibling: parsed.rightSibling };
  }
  if (depth > 0) return parsed.pairs;
  for (let i = 0; i < parsed.pairs.length; i += 2) {
    const start = parsed.pairs[i]!;
    const count = parsed.pairs[i + 1]!;
    if (count === 0 || start < walk.end || start + count > length)
      fail(`extent ${start}+${count} is not between ${walk.end} and the group's end ${length}`);
    walk.end = start + count;
    walk.sum += count;
  }
  return parsed.pairs;
}

/** Reads the blocks that `pairs` name, neighbours in one go; the results are in the order of `pairs`. */
async function readBlocks(walk: Walk, depth: number, pairs: Uint32Array): Promise<Buffer[]> {
  const size = walk.sb.blockSize;
  const count = pairs.length / 2;
  const order = Array.from({ length: count }, (_, i) => i).sort(
    (a, b) => pairs[a * 2 + 1]! - pairs[b * 2 + 1]!,
  );
  const blocks = new Array<Buffer>(count);
  const reads: Promise<void>[] = [];
  for (let at = 0; at < count;) {
    const first = pairs[order[at]! * 2 + 1]!;
    let next = at + 1;
    while (next < count && pairs[order[next]! * 2 + 1]! - first === next - at) next++;
    const run = order.slice(at, next);
    reads.push(
      readRun(walk, depth, first, run.length).then((data) => {
        run.forEach((index, i) => (blocks[index] = data.subarray(i * size, (i + 1) * size)));
      }),
    );
    at = next;
  }
  await Promise.all(reads);
  return blocks;
}

async function readRun(walk: Walk, depth: number, block: number, count: number): Promise<Buffer> {
  const { sb, agf, head } = walk;
  const start = block * sb.blockSize;
  const length = count * sb.blockSize;
  if (start >= head.offset && start + length <= head.offset + head.data.length)
    return head.data.subarray(start - head.offset, start - head.offset + length);
  const where = { group: agf.group, length: agf.length, block, level: depth };
  return readMetadata(walk.readAt, agf.group * sb.agBlocks * sb.blockSize + start, length, placeName(where));
}

/** `readAt` for metadata: bad sectors make the filesystem unreadable, anything else passes. */
export async function readMetadata(
  readAt: ReadAt,
  offset: number,
  length: number,
  what: string,
): Promise<Buffer> {
  try {
    return asBuffer(await readAt(offset, length));
  } catch (error) {
    if (!isReadError(error)) throw error;
    throw unreadable(`${what}: ${error.message}`, error);
  }
}
