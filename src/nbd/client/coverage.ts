/**
 * The parts of a read that have arrived. Chunks may arrive in any order, but no byte is accepted twice. Chunks in order
 * cost nothing; scattered ones are kept as sorted, merged intervals.
 */

/** The most intervals, so that a server that sends every second byte does not keep us busy for ever. */
const MAX_INTERVALS = 65536;

export class Coverage {
  /** The sum of all claims, bytes. */
  covered = 0;
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  reset(): void {
    this.covered = 0;
    this.#starts.length = 0;
    this.#ends.length = 0;
  }

  /** Claims `[start, start + length)`. Returns false if a part was claimed before, or if there are too many pieces. */
  claim(start: number, length: number): boolean {
    const end = start + length;
    const starts = this.#starts;
    const ends = this.#ends;
    // The first interval that ends after our start.
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (ends[middle]! <= start) low = middle + 1;
      else high = middle;
    }
    if (low < starts.length && starts[low]! < end) return false;
    const joinsBefore = low > 0 && ends[low - 1] === start;
    const joinsAfter = low < starts.length && starts[low] === end;
    if (joinsBefore && joinsAfter) {
      ends[low - 1] = ends[low]!;
      starts.splice(low, 1);
      ends.splice(low, 1);
    } else if (joinsBefore) {
      ends[low - 1] = end;
    } else if (joinsAfter) {
      starts[low] = start;
    } else if (starts.length === MAX_INTERVALS) {
      return false;
    } else {
      starts.splice(low, 0, start);
      ends.splice(low, 0, end);
    }
    this.covered += length;
    return true;
  }
}
