/**
 * Checks that all data of the points exists, and lists the lost ranges of their devices. Pages that are whole are
 * visited once, even if several points share them.
 */
import type { Extent } from '../../base/extents.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { ImageMap, type PageSource, nameAt, namesIn } from '../maps/image-map.ts';
import { type Name, isZeroName, nameLength } from '../names.ts';
import type { PointDevice } from '../points/point.ts';
import { isDataLossError } from '../data-loss.ts';
import { PageSet } from '../prune/page-set.ts';
import type { PackCheck } from './packs.ts';

export interface DeviceCheck {
  readonly path: string;
  /** Size of the device in bytes. */
  readonly size: number;
  readonly whole: boolean;
  /** Bytes of the device that cannot be restored. */
  readonly lostBytes: number;
  /** The first thousand of those ranges. */
  readonly lost: readonly Extent[];
  readonly moreLost: boolean;
}

const mostRanges = 1000;
const pagesAhead = 64;

export class PointWalk {
  /** Missing packs that held live data. */
  readonly missing = new Set<string>();
  readonly #index: ChunkIndex;
  readonly #packs: PackCheck;
  readonly #pages: PageSource;
  readonly #chunkSize: number;
  readonly #signal: AbortSignal | undefined;
  readonly #whole = new PageSet();

  constructor(
    index: ChunkIndex,
    packs: PackCheck,
    pages: PageSource,
    { chunkSize, signal }: { readonly chunkSize: number; readonly signal?: AbortSignal | undefined },
  ) {
    this.#index = index;
    this.#packs = packs;
    this.#pages = pages;
    this.#chunkSize = chunkSize;
    this.#signal = signal;
  }

  get pages(): number {
    return this.#whole.size;
  }

  async device(device: PointDevice): Promise<DeviceCheck> {
    const { path, size, levels, root } = device;
    const lost = new LostRanges(size, this.#chunkSize);
    try {
      const options = { root: Buffer.from(root, 'hex'), levels, size, chunkSize: this.#chunkSize };
      const map = new ImageMap(this.#pages, options);
      await this.#visit(map, map.root, levels - 1, 0, lost);
    } catch (error) {
      // The levels do not fit the size.
      if (!isDataLossError(error)) throw error;
      lost.add(0, Math.ceil(size / this.#chunkSize));
    }
    return {
      path,
      size,
      whole: lost.bytes === 0,
      lostBytes: lost.bytes,
      lost: lost.ranges,
      moreLost: lost.isCut,
    };
  }

  /** Returns true if everything below exists. */
  async #visit(map: ImageMap, name: Name, level: number, first: number, lost: LostRanges): Promise<boolean> {
    if (isZeroName(name) || this.#whole.has(name)) return true;
    this.#signal?.throwIfAborted();
    const names = this.#isThere(name) ? await pageOrUndefined(map, name, level) : undefined;
    if (names === undefined) {
      lost.add(first, map.shape.span(level + 1));
      return false;
    }
    const isWhole =
      level === 0 ? this.#chunks(names, first, lost) : await this.#below(map, names, level, first, lost);
    if (isWhole) this.#whole.add(name);
    return isWhole;
  }

  #chunks(names: Buffer, first: number, lost: LostRanges): boolean {
    let isWhole = true;
    for (let at = 0; at * nameLength < names.length; at++) {
      const name = nameAt(names, at);
      if (isZeroName(name) || this.#isThere(name)) continue;
      lost.add(first + at, 1);
      isWhole = false;
    }
    return isWhole;
  }

  async #below(
    map: ImageMap,
    names: Buffer,
    level: number,
    first: number,
    lost: LostRanges,
  ): Promise<boolean> {
    let isWhole = true;
    const children = namesIn(names);
    for (const [at, { entry, name }] of children.entries()) {
      if (at % (pagesAhead / 2) === 0) {
        const soon = children.slice(at, at + pagesAhead).map((child) => child.name);
        this.#pages.prefetch?.(soon.filter((each) => !this.#whole.has(each) && this.#isThere(each)));
      }
      const below = await this.#visit(map, name, level - 1, first + entry * map.shape.span(level), lost);
      isWhole &&= below;
    }
    return isWhole;
  }

  #isThere(name: Name): boolean {
    if (this.#packs.isAllGood) return this.#index.has(name);
    const copies = this.#index.lookup(name);
    if (copies.some((copy) => this.#packs.isGood(copy))) return true;
    for (const { pack } of copies) if (this.#packs.isGone(pack)) this.missing.add(pack);
    return false;
  }
}

async function pageOrUndefined(map: ImageMap, name: Name, level: number): Promise<Buffer | undefined> {
  try {
    return await map.page(name, level);
  } catch (error) {
    if (isDataLossError(error)) return undefined;
    throw error;
  }
}

/** Merges ranges in the order of the device. */
class LostRanges {
  bytes = 0;
  isCut = false;
  readonly ranges: Extent[] = [];
  readonly #size: number;
  readonly #chunkSize: number;

  constructor(size: number, chunkSize: number) {
    this.#size = size;
    this.#chunkSize = chunkSize;
  }

  add(firstChunk: number, count: number): void {
    const offset = firstChunk * this.#chunkSize;
    const length = Math.min(this.#size, (firstChunk + count) * this.#chunkSize) - offset;
    this.bytes += length;
    const last = this.ranges.at(-1);
    if (!this.isCut && last !== undefined && last.offset + last.length === offset)
      this.ranges[this.ranges.length - 1] = { offset: last.offset, length: last.length + length };
    else if (this.ranges.length < mostRanges) this.ranges.push({ offset, length });
    else this.isCut = true;
  }
}
