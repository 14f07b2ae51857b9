/** Bytes per second over the last seconds, from samples of a total. */
import { type Clock, systemClock } from '../../base/clock.ts';

/** Milliseconds. The rate is the mean over this window. */
const windowMs = 5000;

export class RateMeter {
  readonly #clock: Clock;
  #points: { at: number; total: number }[] = [];

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** Adds a sample. `total`: bytes since the start; it never shrinks. */
  add(total: number): void {
    const at = this.#clock.monotonic();
    this.#points.push({ at, total });
    while (this.#points.length > 2 && at - (this.#points[1]?.at ?? at) >= windowMs) this.#points.shift();
  }

  /** Returns bytes per second; 0 before the second sample. */
  rate(): number {
    const first = this.#points[0];
    const last = this.#points.at(-1);
    if (first === undefined || last === undefined || last.at <= first.at) return 0;
    return ((last.total - first.total) / (last.at - first.at)) * 1000;
  }
}
