/**
 * Marks all names that points reference. Each page is read once, even if several points share it. A second marking
 * adds the names of newer points. Memory is bounded: the names are in a `LiveSet`, the pages in a `PageSet`.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { isDataLossError } from '../data-loss.ts';
import { ImageMap, type PageSource, namesIn } from '../maps/image-map.ts';
import { type Name, isZeroName, nameLength } from '../names.ts';
import type { Point, PointDevice } from '../points/point.ts';
import { LiveSet } from './live-set.ts';
import { PageSet } from './page-set.ts';

export interface MarkingOptions {
  readonly chunkSize: number;
  /** Prefix for temporary files. */
  readonly path: string;
  readonly signal?: AbortSignal | undefined;
  /** Number of pages read so far. */
  readonly progress?: ((pages: number) => void) | undefined;
}

/** A device of a point whose map has an unreadable page, so its live data is not fully known. */
export interface UnknownMap {
  readonly point: Point;
  readonly device: PointDevice;
  readonly reason: string;
}

const pagesAhead = 64;

export class Marking {
  readonly live: LiveSet;
  readonly #pages: PageSource;
  readonly #options: MarkingOptions;
  readonly #visited = new PageSet();
  #lost = new PageSet();
  /** Pages that were lost at first and must be visited again, and those of them that were visited. */
  #again: { readonly lost: PageSet; readonly visited: PageSet } | undefined;
  /** The points that are marked, by their IDs and maps. After random numbers repeated, an ID may have another map. */
  readonly #points = new Set<string>();
  #sinceTurn = 0;

  constructor(pages: PageSource, options: MarkingOptions) {
    this.#pages = pages;
    this.#options = options;
    this.live = new LiveSet({ path: options.path });
  }

  /** Returns whether all of these points are marked. */
  knows(points: readonly Point[]): boolean {
    return points.every((point) => this.#points.has(keyOf(point)));
  }

  /** Marks the names that these points reference. Returns the maps that are not fully known. */
  async mark(points: readonly Point[]): Promise<UnknownMap[]> {
    const unknown: UnknownMap[] = [];
    for (const point of points) {
      if (this.#points.has(keyOf(point))) continue;
      for (const device of point.devices) {
        const reason = await this.#markDevice(device);
        if (reason !== undefined) unknown.push({ point, device, reason });
      }
      this.#points.add(keyOf(point));
    }
    this.live.finish();
    return unknown;
  }

  /** Visits the lost pages again. Returns the maps that are still not fully known. */
  async markAgain(unknown: readonly UnknownMap[]): Promise<UnknownMap[]> {
    this.#again = { lost: this.#lost, visited: new PageSet() };
    this.#lost = new PageSet();
    const left: UnknownMap[] = [];
    for (const { point, device } of unknown) {
      const reason = await this.#markDevice(device);
      if (reason !== undefined) left.push({ point, device, reason });
    }
    this.live.finish();
    return left;
  }

  close(): void {
    this.live.close();
  }

  /** Returns why the map is not fully known; undefined if it is. */
  async #markDevice(device: PointDevice): Promise<string | undefined> {
    const { chunkSize } = this.#options;
    const { levels, size } = device;
    try {
      const map = new ImageMap(this.#pages, {
        root: Buffer.from(device.root, 'hex'),
        levels,
        size,
        chunkSize,
      });
      return await this.#visit(map, map.root, levels - 1);
    } catch (error) {
      if (isDataLossError(error)) return error.message;
      throw error;
    }
  }

  async #visit(map: ImageMap, name: Name, level: number): Promise<string | undefined> {
    if (isZeroName(name)) return undefined;
    if (this.#lost.has(name)) return `data below the page ${name.toString('hex')} is lost`;
    if (!this.#visited.add(name) && !this.#isToVisitAgain(name)) return undefined;
    this.live.add(name);
    const reason = await this.#enter(map, name, level);
    if (reason !== undefined) this.#lost.add(name);
    return reason;
  }

  #isToVisitAgain(name: Name): boolean {
    return this.#again?.lost.has(name) === true && this.#again.visited.add(name);
  }

  async #enter(map: ImageMap, name: Name, level: number): Promise<string | undefined> {
    this.#options.signal?.throwIfAborted();
    let names;
    try {
      names = await map.page(name, level);
    } catch (error) {
      if (isDataLossError(error)) return error.message;
      throw error;
    }
    this.#options.progress?.(this.#visited.size);
    if (level === 0) {
      for (let at = 0; at < names.length; at += nameLength) {
        const chunk = names.subarray(at, at + nameLength);
        if (!isZeroName(chunk)) this.live.add(chunk);
      }
      if (++this.#sinceTurn % 16 === 0) await turn();
      return undefined;
    }
    const children = namesIn(names).map((child) => child.name);
    let reason: string | undefined;
    for (const [at, child] of children.entries()) {
      if (at % (pagesAhead / 2) === 0) {
        const soon = children.slice(at, at + pagesAhead);
        this.#pages.prefetch?.(soon.filter((each) => !this.#visited.has(each)));
      }
      const below = await this.#visit(map, child, level - 1);
      reason ??= below;
    }
    return reason;
  }
}

function keyOf({ id, devices }: Point): string {
  return [id, ...devices.map(({ root }) => root)].join(' ');
}
