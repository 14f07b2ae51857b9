/** Programs that write to a mounted filesystem during a backup. They end with the test. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { atEnd, type EndingTest } from './cleanup.ts';

export interface Writer {
  readonly pid: number;
  /** Throws if the program has ended by itself. */
  assertRunning(): void;
  /** Sends SIGTERM (SIGKILL after 10 s) and waits for the end. Safe to call twice. */
  stop(): Promise<void>;
}

/** Starts a program; resolves when it has written its first line. */
async function startWriter(t: EndingTest, command: readonly string[]): Promise<Writer> {
  const child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', (text: Buffer) => (said += text.toString()));
  child.stdout.on('data', (text: Buffer) => (said += text.toString()));
  const ended = once(child, 'close');
  let stopping = false;
  const stop = async (): Promise<void> => {
    stopping = true;
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    const killer = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(killer);
  };
  atEnd(t, stop);
  const assertRunning = (): void => {
    if (!stopping && child.exitCode !== null)
      throw new Error(`${command.join(' ')} ended with ${child.exitCode}: ${said}`);
  };
  await Promise.race([once(child.stdout, 'data'), ended]);
  assertRunning();
  return { pid: child.pid!, assertRunning, stop };
}

/**
 * Starts test/helpers/churn.ts, which creates, renames, deletes and syncs files. A round is 128 KiB; `pause`:
 * milliseconds after each.
 */
export function startChurn(t: EndingTest, mountPoint: string, pause = 2): Promise<Writer> {
  const directory = join(mountPoint, 'churn');
  mkdirSync(directory);
  const program = fileURLToPath(new URL('churn.ts', import.meta.url));
  return startWriter(t, [process.execPath, program, directory, String(pause)]);
}

/** Starts fio (Debian package fio): random writes over two files, an fsync after every eighth. */
export function startFio(
  t: EndingTest,
  mountPoint: string,
  options: { fileSize?: string; rate?: string; seconds?: number } = {},
): Promise<Writer> {
  const { fileSize = '4m', rate = '8m', seconds = 120 } = options;
  const directory = join(mountPoint, 'fio');
  mkdirSync(directory);
  return startWriter(t, [
    ...['fio', '--name=hammer', `--directory=${directory}`, '--rw=randwrite', '--bsrange=4k-64k'],
    ...[`--size=${fileSize}`, '--numjobs=2', '--thread', '--ioengine=psync', '--fsync=8', `--rate=${rate}`],
    ...['--time_based', `--runtime=${seconds}`, '--eta=always', '--eta-newline=1', '--overwrite=0'],
  ]);
}

/** Starts test/helpers/stamper.ts, which puts a stamp in every sector that it writes. */
export function startStamper(
  t: EndingTest,
  mountPoint: string,
  options: {
    readonly seed: number;
    readonly bytesPerSecond: number;
    /** Size of its file. Default 16. */
    readonly mebibytes?: number;
    /** Each write has this number of sectors, past the page cache. */
    readonly sectors?: number;
  },
): Promise<Writer> {
  const program = fileURLToPath(new URL('stamper.ts', import.meta.url));
  const { seed, bytesPerSecond, mebibytes = 16, sectors = 0 } = options;
  const numbers = [seed, bytesPerSecond, mebibytes, sectors].map(String);
  return startWriter(t, [process.execPath, program, mountPoint, ...numbers]);
}

/** Starts test/helpers/alternate.ts, which writes N to the first file, then N to the second, durably. */
export function startAlternating(t: EndingTest, first: string, second: string): Promise<Writer> {
  const program = fileURLToPath(new URL('alternate.ts', import.meta.url));
  return startWriter(t, [process.execPath, program, first, second]);
}
