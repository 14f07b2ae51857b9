/**
 * Builds the map of a new image from an earlier map and the changes, and stores the new pages (docs/formats/vault.md,
 * "Maps"). Pages without changes in their range are neither read nor written.
 */
import type { Extent } from '../../base/extents.ts';
import { type Name, type Namer, nameLength, zeroName } from '../names.ts';
import { type ImageMap, isZeroAt, nameAt } from './image-map.ts';
import { encodePage } from './page.ts';
import { MapShape } from './shape.ts';

export interface BuildMapOptions {
  /** The map of the earlier image of the same size. Without one, the image starts as zeros. */
  readonly base?: ImageMap | undefined;
  /** Bytes of the device. */
  readonly size: number;
  readonly chunkSize: number;
  /**
   * Byte ranges, in any order, that include all changes and all ranges that `used` excludes. Pages outside of them
   * stay as they are. Default: the complete device.
   */
  readonly touched?: Iterable<Extent> | undefined;
  /**
   * Returns the names of these chunks, 32 bytes each. 32 times 0x00: unchanged from the base. 32 times 0xff: all
   * zeros now.
   */
  readonly changed: (firstChunk: number, count: number) => Buffer | Promise<Buffer>;
  /** Returns whether any byte of the range is in use. Unused chunks are left out. */
  readonly used?: ((offset: number, length: number) => boolean) | undefined;
  /** Computes the names of pages, with `Secrets.pageNameKey`. */
  readonly namer: Pick<Namer, 'name'>;
  /** A `PackWriter` of kind `pages`. The caller seals it. */
  readonly pages: { add(name: Name, plain: Buffer): Promise<void> | undefined };
  readonly signal?: AbortSignal | undefined;
  /** Maximum entries of a page; 1024, except in tests. */
  readonly entries?: number;
}

export interface BuiltMap {
  readonly root: Name;
  /** Levels of pages: one more than the root's level. */
  readonly levels: number;
  /** Bytes of the device that the new map names minus those of the base map; all of them if there is no base. */
  readonly growth: number;
}

const cleared = Buffer.alloc(nameLength, 0xff);

/** Rejects with errors of reading the base and adding pages, and with the signal's reason. */
export async function buildMap(options: BuildMapOptions): Promise<BuiltMap> {
  const builder = new Builder(options);
  const root = await builder.build(builder.shape.levels - 1, 0, options.base?.root ?? zeroName);
  return { root, levels: builder.shape.levels, growth: builder.growth };
}

class Builder {
  readonly shape: MapShape;
  growth = 0;
  readonly #options: BuildMapOptions;
  /** By level, which pages were touched; undefined: all. */
  readonly #touched: readonly Uint8Array[] | undefined;

  constructor(options: BuildMapOptions) {
    const { base, size, chunkSize, touched, entries } = options;
    this.#options = options;
    this.shape = new MapShape(size, chunkSize, entries);
    if (base !== undefined && (base.size !== size || base.shape.chunkSize !== chunkSize))
      throw new RangeError(`a map of ${size} bytes cannot be built on one of ${base.size}`);
    this.#touched = touched === undefined ? undefined : touchedPages(this.shape, touched);
  }

  /** Returns the name of the page of this level that begins at this chunk. */
  async build(level: number, first: number, before: Name): Promise<Name> {
    const { shape } = this;
    const page = first / shape.span(level + 1);
    if (this.#touched?.[level]?.[page] === 0) return before;
    this.#options.signal?.throwIfAborted();
    const count = Math.min(shape.entries, Math.ceil((shape.chunks - first) / shape.span(level)));
    const old = (await this.#options.base?.page(before, level)) ?? Buffer.alloc(0);
    const names = Buffer.alloc(count * nameLength);
    old.copy(names);
    if (level === 0) await this.#change(names, first, count);
    else await this.#descend(names, level, first, count, old);
    return this.#store(level, names, before);
  }

  async #change(names: Buffer, first: number, count: number): Promise<void> {
    const { changed, used } = this.#options;
    const { shape } = this;
    const changes = await changed(first, count);
    this.growth -= this.#dataBytes(names, first, count);
    for (let at = 0, next; at < count; at = next) {
      const kind = kindOfChange(changes, at);
      // Neighbours of one kind are handled together.
      for (next = at + 1; next < count && kindOfChange(changes, next) === kind;) next++;
      const [start, end] = [at * nameLength, next * nameLength];
      if (kind === 'cleared') names.fill(0, start, end);
      else if (kind === 'new') changes.copy(names, start, start, end);
    }
    if (used !== undefined)
      for (let at = 0; at < count; at++)
        if (!isZeroAt(names, at) && !used((first + at) * shape.chunkSize, shape.bytesOf(first + at)))
          names.fill(0, at * nameLength, (at + 1) * nameLength);
    this.growth += this.#dataBytes(names, first, count);
  }

  /** Returns the bytes of the device that these names cover. */
  #dataBytes(names: Buffer, first: number, count: number): number {
    let bytes = 0;
    for (let at = 0; at < count; at++) if (!isZeroAt(names, at)) bytes += this.shape.bytesOf(first + at);
    return bytes;
  }

  async #descend(names: Buffer, level: number, first: number, count: number, old: Buffer): Promise<void> {
    const span = this.shape.span(level);
    const below = this.#touched?.[level - 1];
    const children = Array.from({ length: count }, (_, entry) => ({
      entry,
      name: nameAt(old, entry),
    })).filter(({ entry }) => below?.[first / span + entry] !== 0);
    for (const [at, { entry, name }] of children.entries()) {
      this.#options.base?.prefetchAt(children, at);
      (await this.build(level - 1, first + entry * span, name)).copy(names, entry * nameLength);
    }
  }

  async #store(level: number, names: Buffer, before: Name): Promise<Name> {
    const page = encodePage(level, names);
    if (page === undefined) return zeroName;
    const name = this.#options.namer.name(page);
    if (name.equals(before)) return before;
    const wait = this.#options.pages.add(name, page);
    if (wait !== undefined) await wait;
    return name;
  }
}

/** Returns the kind of change that `changed` reports for a chunk. Usually the first byte decides. */
function kindOfChange(changes: Buffer, at: number): 'kept' | 'cleared' | 'new' {
  const byte = changes[at * nameLength];
  if (byte === 0xff && nameAt(changes, at).equals(cleared)) return 'cleared';
  return byte === 0 && isZeroAt(changes, at) ? 'kept' : 'new';
}

function touchedPages(shape: MapShape, extents: Iterable<Extent>): Uint8Array[] {
  const levels = Array.from(
    { length: shape.levels },
    (_, level) => new Uint8Array(Math.ceil(shape.chunks / shape.span(level + 1))),
  );
  const leafBytes = shape.span(1) * shape.chunkSize;
  const leaves = levels[0]!;
  for (const { offset, length } of extents)
    if (length > 0) leaves.fill(1, Math.floor(offset / leafBytes), Math.ceil((offset + length) / leafBytes));
  for (let level = 1; level < levels.length; level++)
    levels[level - 1]!.forEach((touched, page) => {
      if (touched !== 0) levels[level]![Math.floor(page / shape.entries)] = 1;
    });
  return levels;
}
