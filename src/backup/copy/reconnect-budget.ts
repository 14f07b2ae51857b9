/**
 * How long a lost target is waited for. A server that takes connections only to drop them again would be
 * reconnected to for ever: the time counts from the first loss until a connection has held for a while. And one that
 * lets connections hold, but never long enough for a flush to confirm something, gets a limited number of them.
 */
import { pauseAfter } from '../../base/back-off.ts';
import { type Clock, systemClock } from '../../base/clock.ts';

/** A connection that held this long was a good one, milliseconds. */
const goodMs = 5000;
/** Good connections in a row that end without progress. */
export const fruitlessMost = 10;
const backOff = { firstMs: 100, longestMs: 5000, jitter: 0 };

export class ReconnectBudget {
  readonly #waitMs: number;
  readonly #clock: Clock;
  #since: number | undefined;
  #connectedAt = -Infinity;
  #losses = 0;
  #fruitless = 0;

  /** `waitMs`: how long the target may be away. */
  constructor(waitMs: number, clock: Clock = systemClock) {
    this.#waitMs = waitMs;
    this.#clock = clock;
  }

  /**
   * To be called at each loss: for how long to wait for the target from now on, after a pause (both in
   * milliseconds); undefined where patience is at its end.
   */
  lost(): { readonly pauseMs: number; readonly waitMs: number } | undefined {
    const now = this.#clock.monotonic();
    if (this.#since === undefined || now - this.#connectedAt >= goodMs) {
      this.#since = now;
      this.#losses = 0;
      if (++this.#fruitless > fruitlessMost) return undefined;
    }
    const pauseMs = this.#losses === 0 ? 0 : pauseAfter(this.#losses, backOff);
    this.#losses++;
    const waitMs = this.#since + this.#waitMs - now - pauseMs;
    return this.#losses > 1 && waitMs <= 0 ? undefined : { pauseMs, waitMs: Math.max(0, waitMs) };
  }

  /** Something was done that a lost connection cannot undo. */
  progressed(): void {
    this.#fruitless = 0;
  }

  /** The target is back. */
  connected(): void {
    this.#connectedAt = this.#clock.monotonic();
  }
}
