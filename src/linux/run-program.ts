/** Runs a program of the system for what it prints: bounded in time and size, in no language, with no terminal. */
import { execFile } from 'node:child_process';
import { errnoCode } from '../base/errors.ts';

export interface RunOptions {
  /** Milliseconds after which it is killed. Default 10 seconds. */
  readonly timeoutMs?: number | undefined;
  /** Characters of its output. Default 1 MiB. */
  readonly most?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a program printed; undefined where the system has no such program. */
export type RunProgram = (
  program: string,
  args: readonly string[],
  options?: RunOptions,
) => Promise<string | undefined>;

/** Throws an Error that says how it ended, with what it complained of last. */
export const runProgram: RunProgram = (program, args, options = {}) => {
  const { timeoutMs = 10_000, most = 1024 * 1024, signal } = options;
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      args,
      {
        cwd: '/',
        encoding: 'utf8',
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin', LC_ALL: 'C' },
        maxBuffer: most,
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        ...(signal === undefined ? {} : { signal }),
      },
      (error, stdout, stderr) => {
        clearTimeout(late);
        if (error === null) resolve(stdout);
        else if (errnoCode(error) === 'ENOENT') resolve(undefined);
        else
          reject(new Error(`${program} ${endingOf(error, timeoutMs)}${lastLine(stderr)}`, { cause: error }));
      },
    );
    child.stdin?.end();
    // One that waits for a dead disk is not even killed, and keeps its pipes open.
    const late = setTimeout(() => {
      child.stdout?.destroy();
      child.stderr?.destroy();
      child.unref();
      reject(new Error(`${program} cannot be killed`));
    }, timeoutMs + 2000);
  });
};

function endingOf(error: Error & { killed?: boolean; code?: unknown }, timeoutMs: number): string {
  if (error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') return 'printed too much';
  if (error.killed === true) return `was not done after ${timeoutMs} ms`;
  return typeof error.code === 'number' ? `exited with ${error.code}` : `failed: ${String(error.code)}`;
}

function lastLine(text: string): string {
  const line = text.trim().split('\n').at(-1)?.slice(0, 300) ?? '';
  return line === '' ? '' : `: ${line}`;
}
