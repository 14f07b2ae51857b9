/**
 * The blocks that were written to a device since its allocation map was last read, by the takes of the job. It is
 * "take, then read" in reverse: if no take since the reading began names a block, the block is as that reading found
 * it.
 */
import { Bitmap } from '../../base/bitmap.ts';

/** Bytes per bit while no block was written. */
const emptyUnit = 64 * 1024;

export class WrittenSince {
  readonly #size: number;
  /** True if a reading has begun, and every take since then was added. */
  #known = false;
  #written: Bitmap | undefined;

  /** `size`: bytes of the device. */
  constructor(size: number) {
    this.#size = size;
  }

  /**
   * Returns the blocks that were written since the previous reading began, including those written during it. Undefined
   * if they are not known. To be called before a reading reads anything.
   */
  begin(): Bitmap | undefined {
    const written = this.#known ? (this.#written ?? new Bitmap(this.#size, emptyUnit)) : undefined;
    this.#known = true;
    this.#written = undefined;
    return written;
  }

  /** Adds the dirty map of a take. */
  add(dirty: Bitmap): void {
    if (!this.#known) return;
    this.#written ??= new Bitmap(dirty.size, dirty.unit);
    this.#written.or(dirty);
  }

  /** Writes may have been missed: the next reading must not rely on the one before. */
  lose(): void {
    this.#known = false;
    this.#written = undefined;
  }
}
