/** The progress of a job on standard error. */
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import type { JobStatus } from '../../api/job-status.ts';
import type { Io } from '../io.ts';
import { type ProgressReporter, lineReporter, startReporter } from './progress-reporter.ts';
import { totalsOf } from './job-totals.ts';

export interface Progress {
  show(status: JobStatus): void;
  /** Ends the bar, so that lines can be written again. */
  stop(): void;
}

export async function startProgress(io: Io): Promise<Progress> {
  return io.isTerminal ? onBar(await startReporter(io)) : progressLines(io);
}

/** Lines for logs and pipes. */
export function progressLines(io: Pick<Io, 'err'>, now?: () => number): Progress {
  const reporter = lineReporter(io, now);
  return {
    show: (status) => {
      // The output after the progress reports how the job ended.
      if (status.finished_at === null) reporter.show({ phase: phaseText(status), ...progressParts(status) });
    },
    stop: () => reporter.stop(),
  };
}

function onBar(reporter: ProgressReporter): Progress {
  return {
    show: (status) => {
      if (status.finished_at !== null && status.state !== 'SUCCEEDED') return;
      reporter.show({ phase: phaseText(status), ...progressParts(status) });
    },
    stop: () => reporter.stop(),
  };
}

/** The facts that both forms show: bytes, rate, time left, pass, and bytes that are left. */
export function progressParts(status: JobStatus): { fraction: number; parts: string[] } {
  const { done, left, pass } = totalsOf(status);
  const total = done + left;
  const fraction = status.state === 'SUCCEEDED' ? 1 : total === 0 ? 0 : done / total;
  const parts = [
    `${formatBytes(done)} of ${formatBytes(total)}`,
    `${formatBytes(Math.round(status.rate))}/s`,
    status.seconds_left === null ? 'time left unknown' : `${formatDuration(status.seconds_left * 1000)} left`,
    `pass ${pass}`,
    pass > 1 ? `${formatBytes(left)} dirty` : `${formatBytes(left)} to go`,
  ];
  return { fraction, parts };
}

function phaseText(status: JobStatus): string {
  return status.paused ? 'paused' : status.phase;
}
