/**
 * What was written to a device since its used map was last read, by the takes of the job. "Take, then read" the other way
 * round: a block that no take has named since a reading began is as that reading found it.
 */
import { Bitmap } from '../../base/bitmap.ts';

/** Bytes per bit as long as there is nothing to say. */
const emptyUnit = 64 * 1024;

export class WrittenSince {
  readonly #size: number;
  /** A reading has begun, and every take since then was added. */
  #known = false;
  #written: Bitmap | undefined;

  /** Bytes of the device. */
  constructor(size: number) {
    this.#size = size;
  }

  /**
   * To be called before a reading reads anything: what was written since the reading before it began, also during that
   * one. Undefined if that is not known.
   */
  begin(): Bitmap | undefined {
    const written = this.#known ? (this.#written ?? new Bitmap(this.#size, emptyUnit)) : undefined;
    this.#known = true;
    this.#written = undefined;
    return written;
  }

  /** What a take has yielded. */
  add(dirty: Bitmap): void {
    if (!this.#known) return;
    this.#written ??= new Bitmap(dirty.size, dirty.unit);
    this.#written.or(dirty);
  }

  /** Writes may have been missed: what the next reading finds says nothing of the one before. */
  lose(): void {
    this.#known = false;
    this.#written = undefined;
  }
}
