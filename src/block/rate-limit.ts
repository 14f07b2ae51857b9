/** A limit of bytes per second: a token bucket that uses a clock. */
import type { Clock } from '../base/clock.ts';

/**
 * Allows `rate` bytes per second, and after idle time up to `burst` bytes at once. Callers are served in order. A
 * request that is larger than the bucket waits only as long as its own bytes take.
 */
export class TokenBucket {
  readonly #clock: Clock;
  readonly #rate: number;
  readonly #burst: number;
  /** Monotonic time in ms at which all bytes that were taken are paid for. */
  #paidUntil: number;

  constructor(clock: Clock, rate: number, burst: number = rate / 10) {
    if (!(rate > 0)) throw new RangeError(`a rate of ${rate} bytes per second`);
    this.#clock = clock;
    this.#rate = rate;
    this.#burst = burst;
    this.#paidUntil = clock.monotonic() - this.#milliseconds(burst);
  }

  /** Resolves when `bytes` may be sent. Rejects if the signal fires; the bytes still count then. */
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
