/** The shape of a device's map: how many levels it has, and what each entry covers. Pure. */
import { pageEntries } from './page.ts';

export class MapShape {
  /** Bytes of the device. */
  readonly size: number;
  readonly chunkSize: number;
  /** Entries of a page at most: 1024, but for tests. */
  readonly entries: number;
  /** Chunks of the device, the last one perhaps not whole. */
  readonly chunks: number;
  /** Levels of pages, at least one; the root's level is one less. */
  readonly levels: number;

  constructor(size: number, chunkSize: number, entries: number = pageEntries) {
    this.size = size;
    this.chunkSize = chunkSize;
    this.entries = entries;
    this.chunks = Math.ceil(size / chunkSize);
    let levels = 1;
    while (entries ** levels < this.chunks) levels++;
    this.levels = levels;
  }

  /** Chunks that an entry of a page of this level covers. */
  span(level: number): number {
    return this.entries ** level;
  }

  /** Bytes of the device in this chunk: fewer in the last one. */
  bytesOf(chunk: number): number {
    return Math.min(this.chunkSize, this.size - chunk * this.chunkSize);
  }
}
