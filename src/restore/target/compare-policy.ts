/**
 * Whether to read what is there before writing. It is worth it as long as something of it is right; on a disk that holds
 * something else it would only cost a second reading, so after a row of misses one range in sixteen is still tried.
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

  /** For the next range. */
  next(): boolean {
    if (this.#mode !== 'auto') return this.#mode === 'always';
    if (this.#misses < missesInARow) return true;
    this.#skipped = (this.#skipped + 1) % triedAfterwards;
    return this.#skipped === 0;
  }

  /** What came of a range: whether it was compared, and how many bytes were right. */
  learn(compared: boolean, equal: number): void {
    if (!compared) return;
    this.#misses = equal > 0 ? 0 : this.#misses + 1;
  }
}
