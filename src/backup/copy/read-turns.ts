/**
 * Which reads of a thread are of I/O class idle, and how long it pauses between them. Pure.
 *
 * Class idle alone could starve a backup: under writes of others mq-deadline lets such a read wait for up to 10 s, and BFQ
 * serves one request of the class in 200 ms. So a read that had to wait is followed by best-effort reads.
 */
import type { IoClass } from '../../linux/io-priority.ts';
import type { ImpactLevel } from '../impact.ts';

/** A read of class idle that took longer, in milliseconds, was held back by the scheduler or by a slow device. */
export const starvedMs = 150;

/** Pauses in milliseconds: shorter ones are gathered, and no read is followed by a longer one. */
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

  /** The read of that class took so long, milliseconds. Returns what of it the freeze would not have to wait. */
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
   * Milliseconds to pause now, if a thread may read for `share` of its time, has read for `busyMs` since it was asked last,
   * and has done something else for `otherMs` since then.
   */
  pause(share: number, busyMs: number, otherMs: number): number {
    this.#owed = Math.max(0, this.#owed + busyMs * (1 / share - 1) - otherMs);
    if (this.#owed < shortestPause) return 0;
    return Math.min(this.#owed, longestPause);
  }

  /** So long a pause has been made; what was owed beyond the longest one is forgotten. */
  paused(ms: number): void {
    this.#owed = this.#owed > longestPause ? 0 : Math.max(0, this.#owed - ms);
  }
}
