/**
 * Walks the free-space tree of one XFS allocation group level by level. So all its blocks are known before its leaves
 * are read, because they must not be free themselves. Eight bytes a leaf are kept, and no extents. Relations between
 * blocks are checked on the way. Levels count down and extents only grow, so no chain of bad pointers can loop.
 */
import { isReadError } from '../../block/read-errors.ts';
import type { ReadAt } from '../../block/source.ts';
import { type FreeSpaceRoot, isUnreadable, mostLevels, unreadable } from './allocation-group.ts';
import { asBuffer } from './checksum.ts';
import { type TreeOrder, mostEntries, noBlock, parseFreeSpaceBlock, placeName } from './free-space-block.ts';
import { firstBlockAfterHeaders, hasChecksums, type XfsSuperblock } from './superblock.ts';

export interface TreeReader {
  readonly sb: XfsSuperblock;
  readonly readAt: ReadAt;
  readonly signal: AbortSignal | undefined;
  /** Also checks facts that a running filesystem may have written only partly: sibling chain, keys, the sum. */
  readonly strict: boolean;
  /** If given and not `strict`: gets the errors that a strict reading would have thrown. */
  readonly doubt?: ((reason: string) => void) | undefined;
  /** If given: gets the blocks of all trees that are read, as numbers inside the group. */
  readonly found?: ((blocks: readonly number[]) => void) | undefined;
  /** The first bytes of the group, if they were read already. */
  readonly head: { readonly data: Buffer; readonly offset: number };
}

/** The most bytes of tree blocks that are read at a time. */
const batchBytes = 1024 * 1024;
const batchBlocks = 64;

/** A range of blocks inside the group, `end` excluded. */
export interface GroupRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Yields the free extents of the group as pairs of first block and number of blocks (inside the group), one array for
 * each leaf. `own` is metadata in the group that is not in the tree: none of it may be free. Throws
 * FILESYSTEM_UNREADABLE.
 */
export async function* freeExtents(
  reader: TreeReader,
  agf: FreeSpaceRoot,
  own: readonly GroupRange[],
): AsyncGenerator<Uint32Array> {
  const walk = newWalk(reader, agf, 'block');
  const leaves = await leavesOf(walk, agf.root, agf.levels);
  reader.found?.(walk.blocks);
  const metadata = new OwnBlocks(agf, own, walk.blocks);
  for await (const pairs of leafPairs(walk, leaves)) {
    checkExtents(walk, metadata, pairs);
    if (pairs.length > 0) yield pairs;
  }
  if (!isHeldTogether(reader)) return;
  checkEnds(walk);
  if (walk.sum !== agf.freeBlocks)
    object(
      walk,
      `XFS allocation group ${agf.group}: the free-space tree holds ${walk.sum} blocks, the AGF says ${agf.freeBlocks}`,
    );
  if (hasChecksums(reader.sb)) return;
  try {
    await compareBySize(reader, agf, walk.print);
  } catch (error) {
    if (reader.strict || !isUnreadable(error)) throw error;
    object(walk, error.message);
  }
}

/** Returns whether the relations between blocks are checked. */
function isHeldTogether({ strict, doubt }: TreeReader): boolean {
  return strict || doubt !== undefined;
}

function object({ strict, doubt }: TreeReader, reason: string): void {
  if (strict) throw unreadable(reason);
  doubt?.(reason);
}

interface Walk extends TreeReader {
  readonly agf: FreeSpaceRoot;
  readonly order: TreeOrder;
  /** Levels of this tree. */
  levels: number;
  /** The blocks of the tree, in the order of reading. */
  readonly blocks: number[];
  /** The last block seen at each level, from the leaves up. */
  readonly lastAtLevel: { block: number; rightSibling: number }[];
  /** End of the last extent. */
  end: number;
  /** Sum of the blocks of the extents so far. */
  sum: number;
  /** A sum over all records that does not depend on their order. */
  print: number;
}

function newWalk(reader: TreeReader, agf: FreeSpaceRoot, order: TreeOrder): Walk {
  const end = firstBlockAfterHeaders(reader.sb);
  return { ...reader, agf, order, levels: 1, blocks: [], lastAtLevel: [], end, sum: 0, print: 0 };
}

/**
 * Goes down to the leaves, level by level, and returns them as pairs of key and block. Limits the number of leaves to
 * the number that the group has if its leaves are half full. So a forged tree costs no more than a real one may.
 */
async function leavesOf(walk: Walk, root: number, levels: number): Promise<Uint32Array> {
  const { sb, agf } = walk;
  walk.levels = levels;
  walk.blocks.push(root);
  const most = Math.max(4096, agf.length / 2 / Math.floor(mostEntries(sb, 0) / 2));
  let pairs: Uint32Array = Uint32Array.of(noBlock, root);
  for (let depth = levels - 1; depth > 0; depth--) {
    const below: number[] = [];
    for await (const children of level(walk, depth, pairs)) {
      for (const value of children) below.push(value);
      if (below.length / 2 > most)
        throw unreadable(
          `XFS allocation group ${agf.group}: its free-space tree has more than ${Math.floor(most)} blocks in level ${depth - 1}`,
        );
    }
    pairs = Uint32Array.from(below);
    for (let i = 1; i < pairs.length; i += 2) walk.blocks.push(pairs[i]!);
  }
  return pairs;
}

function leafPairs(walk: Walk, leaves: Uint32Array): AsyncGenerator<Uint32Array> {
  return level(walk, 0, leaves);
}

/** Yields the contents of the blocks named in `pairs` (of key and block), all at `depth`, in their order. */
async function* level(walk: Walk, depth: number, pairs: Uint32Array): AsyncGenerator<Uint32Array> {
  const step = Math.max(1, Math.min(batchBlocks, Math.floor(batchBytes / walk.sb.blockSize))) * 2;
  for (let from = 0; from < pairs.length; from += step) {
    walk.signal?.throwIfAborted();
    const batch = pairs.subarray(from, from + step);
    const data = await readBlocks(walk, depth, batch);
    for (let i = 0; i < data.length; i++)
      yield check(walk, depth, batch[i * 2]!, batch[i * 2 + 1]!, data[i]!);
  }
}

/** Parses a block and checks it against the blocks before it. */
function check(walk: Walk, depth: number, key: number, block: number, data: Buffer): Uint32Array {
  const { group, length } = walk.agf;
  const place = { group, length, block, level: depth };
  const isRoot = depth === walk.levels - 1;
  const parsed = parseFreeSpaceBlock(data, walk.sb, place, isRoot, walk.order);
  const fail = (text: string): void => object(walk, `${placeName(place)}: ${text}`);
  if (isHeldTogether(walk)) {
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
  for (let i = 0; i < parsed.pairs.length; i += 2)
    walk.print = (walk.print + mixed(parsed.pairs[i]!, parsed.pairs[i + 1]!)) >>> 0;
  return parsed.pairs;
}

function mixed(start: number, count: number): number {
  const word = Math.imul(start ^ (start >>> 15), 0x85ebca6b) ^ Math.imul(count + 0x9e3779b9, 0xc2b2ae35);
  return Math.imul(word ^ (word >>> 13), 0x27d4eb2f);
}

function checkExtents(walk: Walk, metadata: OwnBlocks, pairs: Uint32Array): void {
  const { group, length } = walk.agf;
  for (let i = 0; i < pairs.length; i += 2) {
    const start = pairs[i]!;
    const count = pairs[i + 1]!;
    if (count === 0 || start < walk.end || start + count > length)
      throw unreadable(
        `XFS allocation group ${group}, free-space tree: extent ${start}+${count} is not between ${walk.end} and the group's end ${length}`,
      );
    const block = metadata.inside(start, start + count);
    if (block !== undefined)
      throw unreadable(
        `XFS allocation group ${group}, free-space tree: extent ${start}+${count} holds block ${block}, which is metadata`,
      );
    walk.end = start + count;
    walk.sum += count;
  }
}

function checkEnds(walk: Walk): void {
  for (const last of walk.lastAtLevel)
    if (last.rightSibling !== noBlock)
      object(
        walk,
        `XFS allocation group ${walk.agf.group}: the free-space tree ends with block ${last.block}, whose right sibling is ${last.rightSibling}`,
      );
}

/**
 * Compares the two trees. Version 4 has no checksums, but a second tree of the same extents: both must hold the same.
 */
async function compareBySize(reader: TreeReader, agf: FreeSpaceRoot, print: number): Promise<void> {
  const { root, levels } = agf.bySize;
  const walk = newWalk(reader, agf, 'size');
  const fits = root >= walk.end && root < agf.length && levels >= 1 && levels <= mostLevels;
  if (!fits)
    throw unreadable(
      `XFS allocation group ${agf.group}, AGF: the tree by size has its root at block ${root} and ${levels} levels`,
    );
  const leaves = await leavesOf(walk, root, levels);
  reader.found?.(walk.blocks);
  // eslint-disable-next-line @typescript-eslint/no-unused-vars -- reading them adds them to the sum
  for await (const _ of leafPairs(walk, leaves));
  if (walk.print !== print)
    throw unreadable(
      `XFS allocation group ${agf.group}: the free-space trees by block number and by size hold different extents`,
    );
}

/** The metadata blocks of the group, which must not be free. Queries must come in ascending order. */
class OwnBlocks {
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  #next = 0;

  constructor(agf: FreeSpaceRoot, own: readonly GroupRange[], blocks: readonly number[]) {
    // Starts and ends are sorted separately. If the ranges do not overlap, each start still belongs to its end.
    this.#starts = Float64Array.from([...own.map(({ start }) => start), ...blocks]).sort();
    this.#ends = Float64Array.from([
      ...own.map(({ end }) => end),
      ...blocks.map((block) => block + 1),
    ]).sort();
    for (let i = 1; i < this.#starts.length; i++)
      if (this.#starts[i]! < this.#ends[i - 1]!)
        throw unreadable(
          `XFS allocation group ${agf.group}: block ${this.#starts[i]} belongs to its metadata twice`,
        );
  }

  /** Returns the first metadata block in `[start, end)`. */
  inside(start: number, end: number): number | undefined {
    while (this.#next < this.#ends.length && this.#ends[this.#next]! <= start) this.#next++;
    const next = this.#starts[this.#next];
    return next !== undefined && next < end ? next : undefined;
  }
}

/** Reads the blocks named in `pairs`, with one read for neighbours. The results are in the order of `pairs`. */
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

/** `readAt` for metadata: bad sectors make the filesystem unreadable, other errors are thrown unchanged. */
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
