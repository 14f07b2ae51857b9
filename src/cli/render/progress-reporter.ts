/** Progress on standard error: a bar on a terminal, else a line at every new phase and every few seconds. */
import type { Io } from '../io.ts';

export interface ProgressUpdate {
  /** A word. */
  readonly phase: string;
  /** From 0 to 1; undefined if the total is not known. */
  readonly fraction: number | undefined;
  /** More facts, such as bytes and rate. */
  readonly parts: readonly string[];
}

export interface ProgressReporter {
  show(update: ProgressUpdate): void;
  /** Ends the bar, so that lines can be written again. */
  stop(): void;
}

const lineMs = 5_000;

export async function startReporter(io: Io): Promise<ProgressReporter> {
  return io.isTerminal ? await barReporter() : lineReporter(io);
}

/** Lines for logs and pipes. */
export function lineReporter(
  io: Pick<Io, 'err'>,
  now: () => number = () => performance.now(),
): ProgressReporter {
  let last = Number.NEGATIVE_INFINITY;
  let told = '';
  return {
    show: ({ phase, fraction, parts }) => {
      if (phase === told && now() - last < lineMs) return;
      last = now();
      told = phase;
      const percent = fraction === undefined ? [] : [`${percentOf(fraction)}%`];
      io.err(`${[phase, ...percent, ...parts].join('  ')}\n`);
    },
    stop: () => undefined,
  };
}

async function barReporter(): Promise<ProgressReporter> {
  const { default: progress } = await import('cli-progress');
  const bar = new progress.SingleBar({
    format: '{phase} [{bar}] {percent}  {parts}',
    barCompleteChar: '#',
    barIncompleteChar: '.',
    barsize: 24,
    hideCursor: true,
    stream: process.stderr,
    // Ctrl-C is handled by the command, not by the bar.
    gracefulExit: false,
  });
  let running = false;
  return {
    show: ({ phase, fraction, parts }) => {
      const percent = fraction === undefined ? '' : `${percentOf(fraction)}%`;
      const payload = { phase, percent, parts: parts.join('  ') };
      if (running) bar.update((fraction ?? 0) * 1000, payload);
      else bar.start(1000, (fraction ?? 0) * 1000, payload);
      running = true;
    },
    stop: () => bar.stop(),
  };
}

function percentOf(fraction: number): number {
  return Math.floor(fraction * 100);
}
