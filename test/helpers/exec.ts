/** Runs Debian's tools from tests. */
import { execFile } from 'node:child_process';

export interface ExecOptions {
  readonly input?: string | Buffer;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Milliseconds after which the program is killed. Default 60000. */
  readonly timeoutMs?: number;
  /** Exit codes that are not a failure. Default: only 0. */
  readonly allow?: readonly number[];
}

export interface ExecResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program without a shell. Rejects if its exit code is not allowed, with both outputs in the message.
 */
export function exec(
  program: string,
  args: readonly string[],
  options: ExecOptions = {},
): Promise<ExecResult> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      [...args],
      {
        timeout: options.timeoutMs ?? 60_000,
        killSignal: 'SIGKILL',
        maxBuffer: 256 * 1024 * 1024,
        cwd: options.cwd,
        env: {
          ...process.env,
          LC_ALL: 'C',
          PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`,
          ...options.env,
        },
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        if (code === 0 || options.allow?.includes(code) === true) resolve({ code, stdout, stderr });
        else
          reject(
            new Error(
              `${program} ${args.join(' ')}: ${error?.signal ?? ''} (exit ${code})\n${(stdout + stderr).slice(0, 2000)}`,
            ),
          );
      },
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.input ?? '');
  });
}
