/** Progress on standard error: a bar on a terminal, else a line every few seconds and at every new phase. */
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import type { JobStatus } from '../../daemon/documents.ts';
import type { Io } from '../io.ts';
import { totalsOf } from './totals.ts';

export interface Progress {
  show(status: JobStatus): void;
  /** Leaves the bar; lines may be written again. */
  stop(): void;
}

const lineMs = 5_000;

export async function startProgress(io: Io): Promise<Progress> {
  return io.isTerminal ? await progressBar() : progressLines(io);
}

/** Lines for logs and pipes. */
export function progressLines(io: Pick<Io, 'err'>, now: () => number = () => performance.now()): Progress {
  let last = Number.NEGATIVE_INFINITY;
  let told = '';
  return {
    show: (status) => {
      const phase = phaseText(status);
      // How it ended is told by what follows.
      if (status.finished_at !== null) return;
      if (phase === told && now() - last < lineMs) return;
      last = now();
      told = phase;
      const { percent, parts } = progressParts(status);
      io.err(`${[phase, `${percent}%`, ...parts].join('  ')}\n`);
    },
    stop: () => undefined,
  };
}

async function progressBar(): Promise<Progress> {
  const { default: progress } = await import('cli-progress');
  const bar = new progress.SingleBar({
    format: '{phase} [{bar}] {percent}%  {parts}',
    barCompleteChar: '#',
    barIncompleteChar: '.',
    barsize: 24,
    hideCursor: true,
    stream: process.stderr,
    // The bar may not decide what Ctrl-C means.
    gracefulExit: false,
  });
  let running = false;
  return {
    show: (status) => {
      if (status.finished_at !== null && status.state !== 'SUCCEEDED') return;
      const { fraction, percent, parts } = progressParts(status);
      const payload = { phase: phaseText(status), percent, parts: parts.join('  ') };
      if (running) bar.update(fraction * 1000, payload);
      else bar.start(1000, fraction * 1000, payload);
      running = true;
    },
    stop: () => bar.stop(),
  };
}

/** What both forms say: bytes, rate, time left, pass, and what is dirty. */
export function progressParts(status: JobStatus): { fraction: number; percent: number; parts: string[] } {
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
  return { fraction, percent: Math.floor(fraction * 100), parts };
}

function phaseText(status: JobStatus): string {
  return status.paused ? 'paused' : status.phase;
}
