/** How fast the copying threads of a device read, to predict how long a freeze will be. */
import type { Bitmap } from '../../base/bitmap.ts';
import { MiB } from '../../base/bytes.ts';
import { roundedOut } from '../../tracking/bitmap-units.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import { spread } from './segments.ts';
import { ownReads } from './stripes.ts';
import type { CopyThreads } from './threads.ts';

/** Bytes that must have been read before their speed is used. */
const tellingBytes = 8 * MiB;

/** Reads of single blocks that are needed before their speed is used. */
const tellingReads = 256;

export class ReadingSpeed {
  readonly #threads: CopyThreads;
  #measured: number | undefined;

  constructor(threads: CopyThreads) {
    this.#threads = threads;
  }

  /** Measures how many bytes per second all threads together read and hash. Infinity for an empty set. */
  async measure(set: Bitmap): Promise<number> {
    return (this.#measured = await this.#measure(set));
  }

  /**
   * Returns the bytes per second at which the passes so far have read, scattered as their blocks were. If they have
   * read little, the speed is measured on `sample`.
   */
  async rate(sample: Bitmap): Promise<number> {
    const { read, readMs } = this.#threads.memory.control.total();
    if (read >= tellingBytes && readMs > 0) return (read / readMs) * 1000 * this.#threads.count;
    return this.#measured ?? this.measure(sample);
  }

  /**
   * Returns the seconds that reading the set into memory takes. They follow from the number of its reads, at the speed
   * of earlier ones, and from its bytes. If too few reads have been measured, it is the time of a pass over the same
   * blocks. For `sample`, see `rate`.
   */
  async secondsToKeep(set: Bitmap, sample: Bitmap): Promise<number> {
    const { memory, facts, count } = this.#threads;
    const { scattered, scatteredMs } = memory.control.total();
    const rate = await this.rate(sample);
    if (scattered < tellingReads || scatteredMs === 0)
      return roundedOut(set, Math.max(facts.minimumBlock, fingerprintUnit)).bytes() / rate;
    let reads = 0;
    let bytes = 0;
    for (const { length } of ownReads(set.extents(), { thread: 0, threads: 1 })) {
      reads++;
      bytes += length;
    }
    return (reads * scatteredMs) / scattered / 1000 / count + bytes / rate;
  }

  async #measure(set: Bitmap): Promise<number> {
    const places = spread(set, 8 * this.#threads.count);
    if (places.length === 0) return Infinity;
    this.#threads.memory.items.set(places.flatMap(({ offset, length }) => [offset, length]));
    const share = Math.ceil(places.length / this.#threads.count);
    const results = await this.#threads.all((thread, i) =>
      thread.call('measure', { first: i * share, count: Math.min(share, places.length - i * share) }),
    );
    return results.reduce((rate, { bytes, ms }) => rate + (bytes > 0 ? (bytes / ms) * 1000 : 0), 0);
  }
}
