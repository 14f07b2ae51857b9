/**
 * Progress of work in this process. With `--json` there is none, because standard error carries only the error
 * object.
 */
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

/** Returns progress in bytes, with rate and time left if they are known. */
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

/** Returns progress in counted things. */
export function countReading(phase: string, what: string, done: number, total?: number): Reading {
  const known = total !== undefined && total > 0;
  return {
    phase,
    fraction: known ? Math.min(1, done / total) : undefined,
    parts: [known ? `${done} of ${total} ${what}` : `${done} ${what}`],
  };
}
