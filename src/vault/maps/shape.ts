/** The shape of a device's map: the number of levels and the range of each entry. Pure. */
import { pageEntries } from './page.ts';

export class MapShape {
  /** Bytes of the device. */
  readonly size: number;
  readonly chunkSize: number;
  /** Maximum entries of a page: 1024, except in tests. */
  readonly entries: number;
  /** Number of chunks of the device. The last one may be shorter. */
  readonly chunks: number;
  /** Levels of pages, at least one. The root's level is one less. */
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

  /** Returns the number of chunks that an entry of a page of this level covers. */
  span(level: number): number {
    return this.entries ** level;
  }

  /** Returns the bytes of the device in this chunk: fewer in the last one. */
  bytesOf(chunk: number): number {
    return Math.min(this.chunkSize, this.size - chunk * this.chunkSize);
  }
}
