/**
 * How long the job waits for a target whose connection was lost. A server could accept connections only to drop them,
 * and the job would reconnect for ever. So the time counts from the first loss until a connection has held for a while.
 * Another server may let connections hold, but never long enough for a flush to confirm something. Such a server gets a
 * limited number of connections.
 */
import { pauseAfter } from '../../base/back-off.ts';
import { type Clock, systemClock } from '../../base/clock.ts';

/** Milliseconds. A connection that held this long was a good one. */
const goodMs = 5000;
/** Good connections in a row that end without progress, at most. */
export const fruitlessMost = 10;
const backOff = { firstMs: 100, longestMs: 5000, jitter: 0 };

export class ReconnectBudget {
  readonly #waitMs: number;
  readonly #clock: Clock;
  #since: number | undefined;
  #connectedAt = -Infinity;
  #losses = 0;
  #fruitless = 0;

  /** `waitMs`: how long the target may be away, in milliseconds. */
  constructor(waitMs: number, clock: Clock = systemClock) {
    this.#waitMs = waitMs;
    this.#clock = clock;
  }

  /**
   * To be called at each loss. Returns the pause before the next try, and how long to wait for the target after it,
   * both in milliseconds. Undefined if the job must give up.
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

  /** Notes progress that a lost connection cannot undo. */
  progressed(): void {
    this.#fruitless = 0;
  }

  /** Notes that the target is back. */
  connected(): void {
    this.#connectedAt = this.#clock.monotonic();
  }
}
