/**
 * Decides from the counters of a range and of its programs whether writes may have been missed. Pure.
 *
 * The kernel skips a program for an event that interrupts the same program. So each program is loaded three times
 * (programs/frame.ts). An event is lost if all copies were skipped for it. Then each copy has misses, and three copies
 * were running on one processor when the event came. Misses of one copy alone are usual under load and lose nothing.
 */
import type { counters } from './layout.ts';

export interface SkippedBefore {
  /** The number of events that each copy was skipped for. */
  readonly misses: readonly bigint[];
  /** How often all copies ran at once on one processor. */
  readonly deep: bigint;
}

export function lostByNesting(
  tracepoint: string,
  before: SkippedBefore,
  now: SkippedBefore,
): string | undefined {
  const skipped = now.misses.map((count, copy) => count - (before.misses[copy] ?? 0n));
  const deep = now.deep - before.deep;
  if (deep <= 0n || skipped.some((count) => count <= 0n)) return undefined;
  return `all ${skipped.length} copies of the program at ${tracepoint} were skipped (${skipped.join(', ')} times, nested ${deep} times)`;
}

export type CounterValues = Readonly<Record<keyof typeof counters, bigint>>;

export function lostByCounters(values: CounterValues): string | undefined {
  const reasons: readonly (readonly [bigint, string])[] = [
    [
      values.passthrough,
      'commands were passed through to the disk (SG_IO, NVMe), which may have written anything',
    ],
    [values.lostInFlight, 'writes on their way could not be remembered'],
    [values.unpaired, 'writes ended whose beginning was not seen'],
    [values.zoneReset, 'zones were reset'],
  ];
  for (const [count, what] of reasons) if (count > 0n) return `${what}: ${count}`;
  return undefined;
}
