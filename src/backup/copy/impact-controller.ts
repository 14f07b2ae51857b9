/**
 * Decides which share of their time the copying threads of a device may read. It measures how long the writes of other
 * programs take. Pure: it gets samples of the kernel's counters and returns a share of time.
 *
 * The device itself gives the reference. From time to time, no thread reads for a moment. The writes of that moment are
 * compared with the writes during our reads. The median of several moments counts, so one burst of writes has no
 * effect. The share falls by a factor and rises by a constant step (additive increase, multiplicative decrease, as in
 * TCP).
 */
import type { WriteCounters } from '../../devices/write-counters.ts';
import type { ImpactLevel } from '../impact.ts';

/** Writes that a sample needs before its mean counts. */
const tellingWrites = 4;

/** Moments without our reads whose mean is kept. */
const restsRemembered = 9;

/** Samples between two such moments, while other programs write; and samples until the first one. */
const restEvery = 40;
const firstRest = 5;

/** The weight of a new sample against the mean of the earlier ones. */
const newestWeight = 0.3;

const fall = 0.8;
const riseSteps = 20;

export class ImpactController {
  readonly #level: Pick<ImpactLevel, 'most' | 'least' | 'slower' | 'slackMs'>;
  #share: number;
  /** Mean milliseconds of a write while our threads did not read, the newest last. */
  readonly #rests: number[] = [];
  /** Mean milliseconds of a write while our threads read. */
  #meeting: number | undefined;
  readonly #gathered = { resting: new Gathered(), copying: new Gathered() };
  #samplesSinceRest = 0;
  #samplesSinceWrite = restEvery;

  constructor(level: Pick<ImpactLevel, 'most' | 'least' | 'slower' | 'slackMs'>) {
    this.#level = level;
    this.#share = level.most;
  }

  /** The share of its time that a thread may spend reading: from the level's `least` to its `most`. */
  get share(): number {
    return this.#share;
  }

  /** True if a moment without reads is due. It never is if no other program wrote recently. */
  get restDue(): boolean {
    if (this.#samplesSinceWrite >= restEvery) return false;
    return this.#samplesSinceRest >= (this.#rests.length === 0 ? firstRest : restEvery);
  }

  /** Adds writes that ended in a moment without our reads. */
  noteResting(writes: WriteCounters): void {
    this.#samplesSinceRest = 0;
    const mean = this.#gathered.resting.add(writes);
    if (mean === undefined) return;
    this.#rests.push(mean);
    if (this.#rests.length > restsRemembered) this.#rests.shift();
  }

  /** Adds writes that ended while our threads read. */
  noteCopying(writes: WriteCounters): void {
    this.#samplesSinceRest++;
    this.#samplesSinceWrite = writes.writes > 0 ? 0 : this.#samplesSinceWrite + 1;
    const mean = this.#gathered.copying.add(writes);
    if (mean !== undefined)
      this.#meeting =
        this.#meeting === undefined ? mean : this.#meeting + newestWeight * (mean - this.#meeting);
    else if (this.#samplesSinceWrite >= restEvery) this.#meeting = undefined;
    const { most, least } = this.#level;
    this.#share = this.#harms
      ? Math.max(least, this.#share * fall)
      : Math.min(most, this.#share + (most - least) / riseSteps);
  }

  get #harms(): boolean {
    if (this.#meeting === undefined || this.#rests.length === 0) return false;
    const usual = median(this.#rests);
    return this.#meeting > usual * this.#level.slower && this.#meeting > usual + this.#level.slackMs;
  }
}

/** Adds up samples until they hold enough writes for a mean. */
class Gathered {
  #writes = 0;
  #ms = 0;

  /** Returns the mean duration of a write in milliseconds, or undefined if there are too few. */
  add({ writes, ms }: WriteCounters): number | undefined {
    this.#writes += writes;
    this.#ms += ms;
    if (this.#writes < tellingWrites) return undefined;
    const mean = this.#ms / this.#writes;
    this.#writes = 0;
    this.#ms = 0;
    return mean;
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
