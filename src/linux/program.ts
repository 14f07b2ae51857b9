/**
 * Runs programs of the system, the one way for all of them: found where root finds them whatever PATH says, in no
 * language, without a terminal or a shell, with no more of this process's environment than lvm2 may need, and not killed
 * for what they print. `outputOf` is for those that are only asked something.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import type { Readable } from 'node:stream';
import { MiB } from '../base/bytes.ts';

/** As in Debian's PATH of root. */
export const programDirectories = [
  '/usr/local/sbin',
  '/usr/local/bin',
  '/usr/sbin',
  '/usr/bin',
  '/sbin',
  '/bin',
];

export interface ProgramOptions {
  /** Milliseconds after which it is killed: for what only looks. Otherwise it is waited for however long it takes. */
  readonly killAfterMs?: number | undefined;
  /** Asks it to end (SIGTERM), and rejects with the signal's reason when it has. */
  readonly signal?: AbortSignal | undefined;
  /** Characters of its output, and of its errors, that are kept; the rest is dropped. Default 16 Mi. */
  readonly mostOutput?: number | undefined;
  /** Default the root. */
  readonly cwd?: string | undefined;
  /** It ends with this process's terminal and by its Ctrl-C. Otherwise it has a session of its own. */
  readonly sharesSession?: boolean | undefined;
}

export interface ProgramResult {
  /** Exit code; null where a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** It was killed, since it took too long. */
  readonly late: boolean;
  /** It printed more than was kept. */
  readonly cut: boolean;
}

/** Absolute path; undefined where it is not installed. */
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

/** What programs of the system run with. */
export function programEnvironment(): Record<string, string> {
  const volumes = process.env['LVM_SYSTEM_DIR'];
  return {
    PATH: programDirectories.join(':'),
    LC_ALL: 'C',
    // lvm2 complains of descriptors that it did not open.
    LVM_SUPPRESS_FD_WARNINGS: '1',
    ...(volumes === undefined ? {} : { LVM_SYSTEM_DIR: volumes }),
  };
}

/** Time to end for what was killed or asked to, milliseconds. */
const endMs = 2000;

/**
 * Runs it to its end, which is waited for: what changes something may not be left half-way. Rejects where it cannot be
 * started, with errno's name as `code`; by `signal`; and where it was killed but does not go.
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
    // One that waits for a dead disk is not even killed, and keeps its pipes open.
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

/** What a program prints; undefined where the system has no such program. */
export type OutputOf = (
  program: string,
  args: readonly string[],
  options?: Pick<ProgramOptions, 'killAfterMs' | 'mostOutput' | 'signal'>,
) => Promise<string | undefined>;

/**
 * Asks a program something: within 10 seconds and 1 MiB, where nothing else is said. Throws an Error that says how it
 * ended, with what it complained of last.
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

/** How it ended, for people: goes on after the program's name. */
export function endingOf({ code, signal, late, cut }: ProgramResult, killAfterMs?: number): string {
  if (late)
    return killAfterMs === undefined ? 'was not done in time' : `was not done after ${killAfterMs} ms`;
  if (cut) return 'printed too much';
  return code === null ? `was ended by ${signal ?? 'a signal'}` : `exited with ${code}`;
}
