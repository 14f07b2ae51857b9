/** A clock that stands still until somebody sleeps on it: sleeping moves it on at once. */
import type { Clock } from '../../src/base/clock.ts';

export interface ManualClock extends Clock {
  /** Moves it on, milliseconds. */
  advance(ms: number): void;
  /** How long it was slept, each time. */
  readonly sleeps: readonly number[];
}

export function manualClock(start = 1_700_000_000_000): ManualClock {
  let time = start;
  const sleeps: number[] = [];
  return {
    sleeps,
    now: () => time,
    monotonic: () => time - start,
    advance: (ms) => (time += ms),
    sleep: async (ms, signal) => {
      signal?.throwIfAborted();
      sleeps.push(ms);
      time += ms;
      await Promise.resolve();
      signal?.throwIfAborted();
    },
  };
}
