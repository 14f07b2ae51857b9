/**
 * Keeps reads that need not be done again because nothing was written there. Each reading of a map searches a dozen
 * places for the signatures of all filesystems, also in a freeze.
 */
import type { ReadAt } from '../block/source.ts';
import type { EarlierMap } from './used-map.ts';

/** The most bytes that are kept. The signatures take 2.3 MiB. */
const most = 2.5 * 1024 * 1024;

interface Kept {
  readonly offset: number;
  readonly data: Uint8Array;
  /**
   * Number of the reading that read it. The data may have been read in the middle of a write, so the same reading reads
   * it again.
   */
  readonly reading: number;
}

export class UnchangedReads {
  readonly #reads = new Map<string, Kept>();
  #bytes = 0;
  #reading = 0;

  /**
   * Forgets reads of ranges that were written since. Call it at the begin of each reading, with all writes since the
   * last reading.
   */
  begin(isWritten: EarlierMap['isWritten']): void {
    this.#reading++;
    for (const [key, { offset, data }] of this.#reads) {
      if (!isWritten(offset, data.length)) continue;
      this.#reads.delete(key);
      this.#bytes -= data.length;
    }
  }

  /** Reads through `readAt`, and keeps the bytes that are read first. The caller must not change the returned bytes. */
  over(readAt: ReadAt): ReadAt {
    return async (offset, length) => {
      const key = `${offset} ${length}`;
      const kept = this.#reads.get(key);
      if (kept !== undefined && kept.reading < this.#reading) return kept.data;
      const data = await readAt(offset, length);
      if (kept === undefined && this.#bytes + length > most) return data;
      if (!this.#reads.has(key)) this.#bytes += length;
      this.#reads.set(key, { offset, data, reading: this.#reading });
      return data;
    };
  }
}
