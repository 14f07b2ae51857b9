/**
 * Progress of work in this process. With `--json` there is none, because standard error carries only the error
 * object.
 */
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import type { Context } from '../context.ts';
import { type ProgressReporter, type ProgressUpdate, startReporter } from '../render/progress-reporter.ts';

export async function withProgress<T>(
  { io, json }: Pick<Context, 'io' | 'json'>,
  work: (show: (update: ProgressUpdate) => void) => Promise<T>,
): Promise<T> {
  const reporter: ProgressReporter | undefined = json ? undefined : await startReporter(io);
  try {
    return await work((update) => reporter?.show(update));
  } finally {
    reporter?.stop();
  }
}

/** Returns progress in bytes, with rate and time left if they are known. */
export function bytesUpdate(
  phase: string,
  done: number,
  total: number | undefined,
  rate?: number,
  more: readonly string[] = [],
): ProgressUpdate {
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
export function countUpdate(phase: string, what: string, done: number, total?: number): ProgressUpdate {
  const known = total !== undefined && total > 0;
  return {
    phase,
    fraction: known ? Math.min(1, done / total) : undefined,
    parts: [known ? `${done} of ${total} ${what}` : `${done} ${what}`],
  };
}
