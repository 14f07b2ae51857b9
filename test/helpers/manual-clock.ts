/**
 * A clock that stands still until a caller sleeps on it. Each sleep moves the clock forward and returns at
 * once.
 */
import type { Clock } from '../../src/base/clock.ts';

export interface ManualClock extends Clock {
  /** Moves the clock forward by milliseconds. */
  advance(ms: number): void;
  /** The length of each sleep, in milliseconds. */
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
