/**
 * Runs programs of the system. All of them are run in the same way: found in the directories of root's PATH, in the C
 * locale, without a terminal or a shell. Of this process's environment they get only the variable that lvm2 may need.
 * They are not killed for too much output. `outputOf` is for programs that only return information.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import type { Readable } from 'node:stream';
import { MiB } from '../base/bytes.ts';

/** The directories of root's PATH in Debian. */
export const programDirectories = [
  '/usr/local/sbin',
  '/usr/local/bin',
  '/usr/sbin',
  '/usr/bin',
  '/sbin',
  '/bin',
];

export interface ProgramOptions {
  /** Milliseconds after which the program is killed. Only for programs that change nothing. Default: no limit. */
  readonly killAfterMs?: number | undefined;
  /** Sends SIGTERM to the program. The promise rejects with the signal's reason when the program has ended. */
  readonly signal?: AbortSignal | undefined;
  /** Characters of standard output, and of standard error, that are kept. The rest is dropped. Default 16 Mi. */
  readonly mostOutput?: number | undefined;
  /** Working directory. Default: `/`. */
  readonly cwd?: string | undefined;
  /** If true, the end of this process's terminal or its Ctrl-C ends the program. Otherwise it has its own session. */
  readonly sharesSession?: boolean | undefined;
}

export interface ProgramResult {
  /** Exit code; null if a signal ended the program. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** The program was killed, because it took too long. */
  readonly late: boolean;
  /** The program printed more than was kept. */
  readonly cut: boolean;
}

/** Returns the absolute path of a program; undefined if it is not installed. */
export function findProgram(name: string): string | undefined {
  return programDirectories
    .map((directory) => `${directory}/${name}`)
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** Returns the environment for programs of the system. */
export function programEnvironment(): Record<string, string> {
  const volumes = process.env['LVM_SYSTEM_DIR'];
  return {
    PATH: programDirectories.join(':'),
    LC_ALL: 'C',
    // Without this, lvm2 warns of open descriptors that it did not open itself.
    LVM_SUPPRESS_FD_WARNINGS: '1',
    ...(volumes === undefined ? {} : { LVM_SYSTEM_DIR: volumes }),
  };
}

/** Milliseconds to wait for the end of a program after a signal. */
const endMs = 2000;

/**
 * Runs a program and waits for its end, because a program that changes something must not be left unfinished. Rejects
 * if the program cannot be started, with errno's name as `code`. Also rejects after `signal`, and if the program was
 * killed but does not end.
 */
export function runProgram(
  path: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  const { killAfterMs, signal, mostOutput = 16 * MiB } = options;
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const child = spawn(path, args, {
      cwd: options.cwd ?? '/',
      detached: options.sharesSession !== true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: programEnvironment(),
    });
    const output = new Output(child.stdout, mostOutput);
    const errors = new Output(child.stderr, mostOutput);
    const timers: NodeJS.Timeout[] = [];
    let late = false;
    const end = (how: NodeJS.Signals): void => {
      child.kill(how);
      timers.push(setTimeout(leave, endMs));
    };
    // A program that waits for a dead disk cannot be killed, and keeps its pipes open.
    const leave = (): void => {
      child.kill('SIGKILL');
      child.stdout.destroy();
      child.stderr.destroy();
      child.unref();
      finish();
      reject(signal?.aborted === true ? reasonOf(signal) : new Error(`${path} cannot be killed`));
    };
    const abort = (): void => end('SIGTERM');
    const finish = (): void => {
      timers.forEach(clearTimeout);
      signal?.removeEventListener('abort', abort);
    };
    signal?.addEventListener('abort', abort, { once: true });
    if (killAfterMs !== undefined)
      timers.push(
        setTimeout(() => {
          late = true;
          end('SIGKILL');
        }, killAfterMs),
      );
    child.once('error', (error) => {
      finish();
      reject(error);
    });
    child.once('close', (code, killedBy) => {
      finish();
      if (signal?.aborted === true) reject(reasonOf(signal));
      else
        resolve({
          ...{ code, signal: killedBy, stdout: output.text, stderr: errors.text },
          ...{ late, cut: output.cut || errors.cut },
        });
    });
  });
}

class Output {
  text = '';
  cut = false;

  constructor(stream: Readable, most: number) {
    stream.setEncoding('utf8').on('data', (more: string) => {
      const room = most - this.text.length;
      this.cut ||= more.length > room;
      this.text += this.cut ? more.slice(0, room) : more;
    });
  }
}

function reasonOf(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error('aborted', { cause: signal.reason });
}

/** Returns the output of a program; undefined if the program is not installed. */
export type OutputOf = (
  program: string,
  args: readonly string[],
  options?: Pick<ProgramOptions, 'killAfterMs' | 'mostOutput' | 'signal'>,
) => Promise<string | undefined>;

/**
 * Runs a program that only returns information. Default limits: 10 seconds and 1 MiB of output. Throws an Error with
 * the way it ended and the last line of its standard error.
 */
export const outputOf: OutputOf = async (program, args, options = {}) => {
  const { killAfterMs = 10_000, mostOutput = MiB, signal } = options;
  const path = findProgram(program);
  if (path === undefined) return undefined;
  const result = await runProgram(path, args, { killAfterMs, mostOutput, signal });
  if (result.code === 0 && !result.cut) return result.stdout;
  const line = result.stderr.trim().split('\n').at(-1)?.slice(0, 300) ?? '';
  throw new Error(`${program} ${endingOf(result, killAfterMs)}${line === '' ? '' : `: ${line}`}`);
};

/** Describes how a program ended, as the text after the program's name in a message. */
export function endingOf({ code, signal, late, cut }: ProgramResult, killAfterMs?: number): string {
  if (late)
    return killAfterMs === undefined ? 'was not done in time' : `was not done after ${killAfterMs} ms`;
  if (cut) return 'printed too much';
  return code === null ? `was ended by ${signal ?? 'a signal'}` : `exited with ${code}`;
}
