/**
 * Decides whether to read a range of the destination before writing. Reading saves writes if some of the data is equal.
 * Otherwise it only costs time. So after 16 misses in a row, only one range in sixteen is compared.
 */
export type CompareMode = 'auto' | 'always' | 'never';

const missesInARow = 16;
const triedAfterwards = 16;

export class ComparePolicy {
  readonly #mode: CompareMode;
  #misses = 0;
  #skipped = 0;

  constructor(mode: CompareMode) {
    this.#mode = mode;
  }

  /** Returns whether to compare the next range. */
  next(): boolean {
    if (this.#mode !== 'auto') return this.#mode === 'always';
    if (this.#misses < missesInARow) return true;
    this.#skipped = (this.#skipped + 1) % triedAfterwards;
    return this.#skipped === 0;
  }

  /** Reports the result of a range: whether it was compared, and how many bytes were equal. */
  learn(compared: boolean, equal: number): void {
    if (!compared) return;
    this.#misses = equal > 0 ? 0 : this.#misses + 1;
  }
}
