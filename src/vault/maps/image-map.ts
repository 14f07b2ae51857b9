/**
 * The map of a device at one point: the name of each chunk (docs/formats/vault.md, "Maps"). Pages are read on demand.
 * Empty ranges of the device, and ranges that two maps share, cost nothing.
 */
import { AgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import { type Name, isZeroName, nameLength, zeroName } from '../names.ts';
import { parsePage } from './page.ts';
import { MapShape } from './shape.ts';

/** Reads pages and verifies them against their names. `PartReader` is one. */
export interface PageSource {
  get(name: Name): Promise<Buffer>;
  /** Announces names that will be requested soon. */
  prefetch?(names: readonly Name[]): void;
}

export interface ImageMapOptions {
  readonly root: Name;
  /** Levels of pages as in the point: one more than the root's level. */
  readonly levels: number;
  /** Bytes of the device. */
  readonly size: number;
  readonly chunkSize: number;
  /** Maximum entries of a page; 1024, except in tests. */
  readonly entries?: number;
}

/** Names of consecutive chunks. The following names up to the end of the page are all-zero names. */
export interface MapLeaf {
  readonly firstChunk: number;
  /** 32 bytes each; read-only. */
  readonly names: Buffer;
}

export interface ChunkRange {
  readonly firstChunk: number;
  readonly count: number;
}

/** Number of pages that are requested ahead during a walk: at most one MiB. */
const pagesAhead = 32;

export class ImageMap {
  readonly root: Name;
  readonly shape: MapShape;
  readonly #pages: PageSource;

  /** Throws VAULT_DAMAGED if `levels` does not fit a device of this size. */
  constructor(pages: PageSource | PageSource['get'], options: ImageMapOptions) {
    const { root, levels, size, chunkSize, entries } = options;
    this.#pages = typeof pages === 'function' ? { get: pages } : pages;
    this.root = root;
    this.shape = new MapShape(size, chunkSize, entries);
    if (levels !== this.shape.levels)
      throw new AgentError(
        'VAULT_DAMAGED',
        `the map of a device of ${size} bytes has ${levels} levels instead of ${this.shape.levels}`,
      );
  }

  get levels(): number {
    return this.shape.levels;
  }

  get size(): number {
    return this.shape.size;
  }

  /** Returns the names in the page of this name and level (at level 0, of chunks); empty for the all-zero name. */
  async page(name: Name, level: number): Promise<Buffer> {
    if (isZeroName(name)) return noNames;
    return parsePage(await this.#pages.get(name), level, name, this.shape.entries);
  }

  /** Returns the names of `count` chunks. Empty chunks and chunks past the end have the all-zero name. */
  async names(firstChunk: number, count: number): Promise<Buffer> {
    const result = Buffer.alloc(count * nameLength);
    for await (const leaf of this.leaves({ firstChunk, count }))
      leaf.names.copy(result, (leaf.firstChunk - firstChunk) * nameLength);
    return result;
  }

  /** Yields the pages of chunk names in order, limited to the range. Skips empty parts of the map. */
  async *leaves(range?: ChunkRange): AsyncGenerator<MapLeaf> {
    const from = range?.firstChunk ?? 0;
    const to = Math.min(this.shape.chunks, range === undefined ? Infinity : from + range.count);
    yield* this.#walk(this.root, this.levels - 1, 0, from, to);
  }

  async *#walk(name: Name, level: number, first: number, from: number, to: number): AsyncGenerator<MapLeaf> {
    const names = await this.page(name, level);
    const span = this.shape.span(level);
    const begin = Math.max(0, Math.floor((from - first) / span));
    const end = Math.min(names.length / nameLength, Math.ceil((to - first) / span));
    if (begin >= end) return;
    if (level === 0) {
      yield { firstChunk: first + begin, names: names.subarray(begin * nameLength, end * nameLength) };
      return;
    }
    const children = namesIn(names, begin, end);
    for (const [at, child] of children.entries()) {
      this.prefetchAt(children, at);
      yield* this.#walk(child.name, level - 1, first + child.entry * span, from, to);
    }
  }

  /** Keeps between one and two times `pagesAhead` pages requested. */
  prefetchAt(children: readonly NamedEntry[], at: number): void {
    if (this.#pages.prefetch === undefined || at % pagesAhead !== 0) return;
    const soon = children.slice(at, at + 2 * pagesAhead).map(({ name }) => name);
    this.#pages.prefetch(soon.filter((name) => !isZeroName(name)));
  }

  /** Yields the ranges that hold data: maximal ranges of chunks, the last one limited to the device's size. */
  async *extents(): AsyncGenerator<Extent> {
    yield* this.#joined(this.#dataChunks());
  }

  async *#dataChunks(): AsyncGenerator<ChunkRange> {
    for await (const { firstChunk, names } of this.leaves())
      yield* runs(names.length / nameLength, firstChunk, (at) => !isZeroAt(names, at));
  }

  async *#joined(ranges: AsyncIterable<ChunkRange>, size = this.size): AsyncGenerator<Extent> {
    const { chunkSize } = this.shape;
    let from = 0;
    let to = 0;
    const extent = (): Extent => ({
      offset: from * chunkSize,
      length: Math.min(size, to * chunkSize) - from * chunkSize,
    });
    for await (const { firstChunk, count } of ranges) {
      if (firstChunk !== to) {
        if (to > from) yield extent();
        from = firstChunk;
      }
      to = firstChunk + count;
    }
    if (to > from) yield extent();
  }

  /**
   * Yields the ranges that differ between two images, in whole chunks and limited to the larger size. It reads only
   * pages that differ, so the time depends on the changes. The images may have different sizes, but must be of one
   * vault.
   */
  static async *diff(a: ImageMap, b: ImageMap): AsyncGenerator<Extent> {
    if (a.shape.chunkSize !== b.shape.chunkSize || a.shape.entries !== b.shape.entries)
      throw new RangeError(`maps with chunks of ${a.shape.chunkSize} and ${b.shape.chunkSize} bytes`);
    const larger = a.size > b.size ? a : b;
    const level = larger.levels - 1;
    yield* larger.#joined(differing(a, b, a.root, b.root, level, 0), larger.size);
  }

  /** Like `page`. Above the root there are virtual pages with the root as their only entry. */
  entriesOf(name: Name, level: number): Promise<Buffer> {
    return level < this.levels ? this.page(name, level) : Promise.resolve(isZeroName(name) ? noNames : name);
  }
}

async function* differing(
  a: ImageMap,
  b: ImageMap,
  nameA: Name,
  nameB: Name,
  level: number,
  first: number,
): AsyncGenerator<ChunkRange> {
  // Pages include their level, so equal names mean equal pages, unless only one of them is virtual.
  if (nameA.equals(nameB) && level < a.levels === level < b.levels) return;
  const [namesA, namesB] = await Promise.all([a.entriesOf(nameA, level), b.entriesOf(nameB, level)]);
  const count = Math.max(namesA.length, namesB.length) / nameLength;
  const differs = (at: number): boolean => !nameAt(namesA, at).equals(nameAt(namesB, at));
  if (level === 0) {
    yield* runs(count, first, differs);
    return;
  }
  const changed = Array.from({ length: count }, (_, at) => at).filter(differs);
  const childrenA = changed.map((entry) => ({ entry, name: nameAt(namesA, entry) }));
  const childrenB = changed.map((entry) => ({ entry, name: nameAt(namesB, entry) }));
  for (const [at, entry] of changed.entries()) {
    a.prefetchAt(childrenA, at);
    b.prefetchAt(childrenB, at);
    const child = [nameAt(namesA, entry), nameAt(namesB, entry)] as const;
    yield* differing(a, b, ...child, level - 1, first + entry * a.shape.span(level));
  }
}

/** A page entry that is not the all-zero name. */
export interface NamedEntry {
  readonly entry: number;
  readonly name: Name;
}

export function namesIn(names: Buffer, begin = 0, end = names.length / nameLength): NamedEntry[] {
  const found: NamedEntry[] = [];
  for (let entry = begin; entry < end; entry++) {
    if (!isZeroAt(names, entry)) found.push({ entry, name: nameAt(names, entry) });
  }
  return found;
}

/** Returns the name at this index; past the end, the all-zero name. */
export function nameAt(names: Buffer, at: number): Name {
  const start = at * nameLength;
  return start < names.length ? names.subarray(start, start + nameLength) : zeroName;
}

/** Returns whether the entry at this index is the all-zero name. Usually the first byte decides. */
export function isZeroAt(names: Buffer, at: number): boolean {
  return names[at * nameLength] === 0 && isZeroName(nameAt(names, at));
}

const noNames = Buffer.alloc(0);

/** Yields the maximal ranges of `[0, count)` for which the test holds, shifted by `first`. */
function* runs(count: number, first: number, test: (at: number) => boolean): Generator<ChunkRange> {
  for (let at = 0; at < count; at++) {
    if (!test(at)) continue;
    const from = at;
    while (at + 1 < count && test(at + 1)) at++;
    yield { firstChunk: first + from, count: at + 1 - from };
  }
}
