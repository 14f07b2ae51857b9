/**
 * A limit of bytes per second: the virtual scheduling of the generic cell rate algorithm (GCRA). All its state is one
 * number, the time at which all bytes that were taken are paid for. So threads can share a limit without a lock.
 */
import type { Clock } from '../base/clock.ts';

/** How long an idle limit saves up bytes, which may then be sent at once. Microseconds. */
const burstMicros = 100_000n;

/**
 * Books `bytes` at `rate` bytes per second. Returns for how many milliseconds the caller must wait before it sends them.
 * `paidUntil` holds one time in microseconds, of the same clock as `now`; threads may share its memory. Callers are served
 * in order. A booking that is larger than the burst waits only as long as its own bytes take.
 */
export function bookBytes(paidUntil: BigInt64Array, bytes: number, rate: number, now: bigint): number {
  const cost = BigInt(Math.ceil((bytes / rate) * 1e6));
  for (;;) {
    const paid = Atomics.load(paidUntil, 0);
    const start = paid > now - burstMicros ? paid : now - burstMicros;
    if (Atomics.compareExchange(paidUntil, 0, paid, start + cost) === paid)
      return Math.max(0, Number(start + cost - now) / 1000);
  }
}

/** A limit for one thread. */
export class RateLimit {
  readonly #clock: Clock;
  readonly #rate: number;
  readonly #paidUntil = new BigInt64Array(1);

  /** `rate`: bytes per second. */
  constructor(clock: Clock, rate: number) {
    if (!(rate > 0)) throw new RangeError(`a rate of ${rate} bytes per second`);
    this.#clock = clock;
    this.#rate = rate;
    this.#paidUntil[0] = this.#now() - burstMicros;
  }

  /** Resolves when `bytes` may be sent. Rejects if the signal fires; the bytes still count then. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    const wait = bookBytes(this.#paidUntil, bytes, this.#rate, this.#now());
    if (wait > 0) await this.#clock.sleep(wait, signal);
  }

  #now(): bigint {
    return BigInt(Math.floor(this.#clock.monotonic() * 1000));
  }
}
