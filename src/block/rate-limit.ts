/** A limit of bytes per second: a token bucket over a clock. */
import type { Clock } from '../base/clock.ts';

/**
 * Lets `rate` bytes per second through, and after idle time up to `burst` bytes at once. Callers are served in
 * order; one larger than the bucket waits its own length and no more.
 */
export class TokenBucket {
  readonly #clock: Clock;
  readonly #rate: number;
  readonly #burst: number;
  /** Moment (monotonic, ms) at which the bucket would be empty of debts. */
  #paidUntil: number;

  constructor(clock: Clock, rate: number, burst: number = rate / 10) {
    if (!(rate > 0)) throw new RangeError(`a rate of ${rate} bytes per second`);
    this.#clock = clock;
    this.#rate = rate;
    this.#burst = burst;
    this.#paidUntil = clock.monotonic() - this.#milliseconds(burst);
  }

  /** Resolves when `bytes` may go. Rejects when the signal fires; the bytes stay booked then. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    const now = this.#clock.monotonic();
    const start = Math.max(this.#paidUntil, now - this.#milliseconds(this.#burst));
    this.#paidUntil = start + this.#milliseconds(bytes);
    const wait = this.#paidUntil - now;
    if (wait > 0) await this.#clock.sleep(wait, signal);
  }

  #milliseconds(bytes: number): number {
    return (bytes / this.#rate) * 1000;
  }
}
