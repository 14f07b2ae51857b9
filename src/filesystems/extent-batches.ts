/** Gathers used ranges in ascending order into batches of extents. Ranges that touch become one extent. */
import type { Extent } from '../base/extents.ts';

export class ExtentBatches {
  #batch: Extent[] = [];
  #start = 0;
  #end = 0;

  /** Adds a range in bytes. `start` must not be before the end of the previous range. Empty ranges are dropped. */
  add(start: number, end: number): void {
    if (start >= end) return;
    if (start < this.#end) throw new RangeError(`used range at ${start} comes before ${this.#end}`);
    if (start > this.#end) {
      this.#close();
      this.#start = start;
    }
    this.#end = end;
  }

  /** The number of complete extents. */
  get length(): number {
    return this.#batch.length;
  }

  /** Returns the complete extents. The last one may still grow, and is kept back. */
  take(): Extent[] {
    const batch = this.#batch;
    this.#batch = [];
    return batch;
  }

  /** Returns the remaining extents. */
  finish(): Extent[] {
    this.#close();
    this.#start = this.#end;
    return this.take();
  }

  #close(): void {
    if (this.#end > this.#start) this.#batch.push({ offset: this.#start, length: this.#end - this.#start });
  }
}
