/** Progress of work in this process. Under `--json` standard error is for the error object alone, so there is none. */
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import type { Context } from '../context.ts';
import { type Meter, type Reading, startMeter } from '../render/meter.ts';

export async function withMeter<T>(
  { io, json }: Pick<Context, 'io' | 'json'>,
  work: (show: (reading: Reading) => void) => Promise<T>,
): Promise<T> {
  const meter: Meter | undefined = json ? undefined : await startMeter(io);
  try {
    return await work((reading) => meter?.show(reading));
  } finally {
    meter?.stop();
  }
}

/** Of bytes, with rate and time left where they can be told. */
export function bytesReading(
  phase: string,
  done: number,
  total: number | undefined,
  rate?: number,
  more: readonly string[] = [],
): Reading {
  const left = total !== undefined && rate !== undefined && rate > 0 ? (total - done) / rate : undefined;
  const known = total !== undefined && total > 0;
  return {
    phase,
    fraction: known ? Math.min(1, done / total) : undefined,
    parts: [
      known ? `${formatBytes(Math.min(done, total))} of ${formatBytes(total)}` : formatBytes(done),
      ...(rate === undefined ? [] : [`${formatBytes(Math.round(rate))}/s`]),
      ...(left === undefined ? [] : [`${formatDuration(Math.max(0, left) * 1000)} left`]),
      ...more,
    ],
  };
}

/** Of things that are counted. */
export function countReading(phase: string, what: string, done: number, total?: number): Reading {
  const known = total !== undefined && total > 0;
  return {
    phase,
    fraction: known ? Math.min(1, done / total) : undefined,
    parts: [known ? `${done} of ${total} ${what}` : `${done} ${what}`],
  };
}
