/**
 * Decides which reads of a thread have I/O class idle, and how long the thread pauses between reads. Pure.
 *
 * Class idle alone could starve a backup. While other programs write, mq-deadline lets such a read wait for up to 10 s,
 * and BFQ serves one request of the class in 200 ms. So a read that had to wait is followed by best-effort reads.
 */
import type { IoClass } from '../../linux/io-priority.ts';
import type { ImpactLevel } from '../impact.ts';

/** Milliseconds. The scheduler or a slow device has delayed a read of class idle that took longer. */
export const starvedMs = 150;

/** Pauses in milliseconds. Shorter ones are added up, and none after a read is longer. */
const shortestPause = 2;
const longestPause = 500;

export class ReadTurns {
  readonly #level: Pick<ImpactLevel, 'amends'>;
  /** Milliseconds of best-effort reads that are due. */
  #due = 0;
  /** Milliseconds of pause that are owed. */
  #owed = 0;

  constructor(level: Pick<ImpactLevel, 'amends'>) {
    this.#level = level;
  }

  /** The class of the next read. */
  get ioClass(): Extract<IoClass, 'idle' | 'lowest'> {
    return this.#due > 0 ? 'lowest' : 'idle';
  }

  /** Notes that a read of that class took `ms`. Returns how many of them the read would not have waited in a freeze. */
  took(ms: number): number {
    if (this.#due > 0) {
      this.#due -= ms;
      return 0;
    }
    const waited = Math.max(0, ms - starvedMs);
    this.#due = waited * this.#level.amends;
    return waited;
  }

  /**
   * Returns the milliseconds to pause now. The thread may read for `share` of its time. Since the last call it has read
   * for `busyMs`, and has done other work for `otherMs`.
   */
  pause(share: number, busyMs: number, otherMs: number): number {
    this.#owed = Math.max(0, this.#owed + busyMs * (1 / share - 1) - otherMs);
    if (this.#owed < shortestPause) return 0;
    return Math.min(this.#owed, longestPause);
  }

  /** Notes that a pause of `ms` was made. If more than the longest pause was owed, the rest is forgotten. */
  paused(ms: number): void {
    this.#owed = this.#owed > longestPause ? 0 : Math.max(0, this.#owed - ms);
  }
}
