/**
 * Runs a program of the system that has no kernel interface worth repeating (lvm2). Looked up in the directories of the
 * system alone, whatever PATH says; in the C locale; in a session of its own, so that a Ctrl-C that is meant for the
 * agent does not end it half-way.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';

const directories = ['/usr/sbin', '/sbin', '/usr/bin', '/bin'];

/** Characters of output that are kept. */
const mostOutput = 16 * 1024 * 1024;

export interface ProgramResult {
  /** Exit code; null where a signal ended it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Absolute path; undefined where it is not installed. */
export function findProgram(name: string): string | undefined {
  return directories
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

/**
 * Runs it to its end, which is waited for however long it takes: what changes volumes may not be killed half-way.
 * `killAfterMs` is for what only looks. Rejects where it cannot be started.
 */
export function runProgram(
  path: string,
  args: readonly string[],
  options: { readonly killAfterMs?: number } = {},
): Promise<ProgramResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, {
      cwd: '/',
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PATH: directories.join(':'), LC_ALL: 'C', LVM_SUPPRESS_FD_WARNINGS: '1' },
      ...(options.killAfterMs === undefined ? {} : { timeout: options.killAfterMs, killSignal: 'SIGKILL' }),
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (stdout.length < mostOutput) stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < mostOutput) stderr += text;
    });
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
}
