/** Bytes per second over the last seconds, from a total that is looked at now and then. */
import { type Clock, systemClock } from '../../base/clock.ts';

/** Length of the window that the rate is the mean of, milliseconds. */
const windowMs = 5000;

export class RateMeter {
  readonly #clock: Clock;
  #points: { at: number; total: number }[] = [];

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** `total`: bytes since the beginning; never shrinks. */
  add(total: number): void {
    const at = this.#clock.monotonic();
    this.#points.push({ at, total });
    while (this.#points.length > 2 && at - (this.#points[1]?.at ?? at) >= windowMs) this.#points.shift();
  }

  /** Bytes per second; 0 before the second look. */
  rate(): number {
    const first = this.#points[0];
    const last = this.#points.at(-1);
    if (first === undefined || last === undefined || last.at <= first.at) return 0;
    return ((last.total - first.total) / (last.at - first.at)) * 1000;
  }
}
