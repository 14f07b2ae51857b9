/** Gathers used ranges in ascending order into batches of extents; ranges that touch become one. */
import type { Extent } from '../base/extents.ts';

export class ExtentBatches {
  #batch: Extent[] = [];
  #start = 0;
  #end = 0;

  /** Bytes; `start` may not be before the end of the range before. Empty ranges are dropped. */
  add(start: number, end: number): void {
    if (start >= end) return;
    if (start < this.#end) throw new RangeError(`used range at ${start} comes before ${this.#end}`);
    if (start > this.#end) {
      this.#close();
      this.#start = start;
    }
    this.#end = end;
  }

  /** How many extents are complete. */
  get length(): number {
    return this.#batch.length;
  }

  /** The extents that are complete; the last one may still grow, and is kept back. */
  take(): Extent[] {
    const batch = this.#batch;
    this.#batch = [];
    return batch;
  }

  /** The rest. */
  finish(): Extent[] {
    this.#close();
    this.#start = this.#end;
    return this.take();
  }

  #close(): void {
    if (this.#end > this.#start) this.#batch.push({ offset: this.#start, length: this.#end - this.#start });
  }
}
