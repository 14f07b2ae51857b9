/**
 * Reads that need not be done again, since nothing was written there: the signatures of all filesystems are looked for in
 * a dozen places, each time that a map is read, also in a freeze.
 */
import type { ReadAt } from '../block/source.ts';
import type { EarlierMap } from './used-map.ts';

/** Bytes; the signatures take 2.3 MiB. */
const most = 2.5 * 1024 * 1024;

interface Kept {
  readonly offset: number;
  readonly data: Uint8Array;
  /** In which it was read: what it read may have been in the middle of a write, and that one reads again. */
  readonly reading: number;
}

export class UnchangedReads {
  readonly #reads = new Map<string, Kept>();
  #bytes = 0;
  #reading = 0;

  /** Forgets what was written since it was read. To be called at the begin of each reading, with all since the last. */
  begin(isWritten: EarlierMap['isWritten']): void {
    this.#reading++;
    for (const [key, { offset, data }] of this.#reads) {
      if (!isWritten(offset, data.length)) continue;
      this.#reads.delete(key);
      this.#bytes -= data.length;
    }
  }

  /** Reads through `readAt`, and keeps the first bytes that are read. What it returns is not to be changed. */
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
