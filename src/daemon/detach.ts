/**
 * Detaches as a service. The parent starts the daemon in a session of its own. The parent then waits until the daemon
 * reports that it is ready, or why not. So `dattod && dattocli devices` works, and systemd's Type=forking too.
 */
import { spawn } from 'node:child_process';
import { AgentError, type ErrorDocument } from '../base/errors.ts';

/** The report that the child sends to the parent, once. */
export interface StartReport {
  readonly ready?: true;
  readonly error?: ErrorDocument;
}

/** Longest wait for the report, milliseconds. The daemon may have to wait for a filesystem that was left frozen. */
const startMs = 60_000;

/** Starts this program again with `--foreground`, detached. Resolves with its pid, or throws the error it reported. */
export function detach(args: readonly string[]): Promise<number> {
  const child = spawn(
    process.execPath,
    [...process.execArgv, process.argv[1] ?? '', ...args, '--foreground'],
    { detached: true, cwd: '/', stdio: ['ignore', 'ignore', 'ignore', 'ipc'] },
  );
  return new Promise((resolve, reject) => {
    const fail = (error: AgentError) => {
      clearTimeout(timer);
      reject(error);
    };
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      fail(
        new AgentError('INTERNAL', `dattod was not ready within ${startMs / 1000} s`, {
          hint: 'see its log',
        }),
      );
    }, startMs);
    child.once('error', (cause) =>
      fail(new AgentError('INTERNAL', `dattod did not start: ${cause.message}`, { cause })),
    );
    child.once('exit', (code, signal) =>
      fail(
        new AgentError('INTERNAL', `dattod ended at its start (${signal ?? `exit code ${code ?? '?'}`})`, {
          hint: 'run it with --foreground --log-file - to see why',
        }),
      ),
    );
    child.once('message', (report: StartReport) => {
      if (report.error !== undefined) {
        fail(AgentError.fromDocument(report.error));
        return;
      }
      clearTimeout(timer);
      child.removeAllListeners();
      child.unref();
      if (child.connected) child.disconnect();
      resolve(child.pid ?? 0);
    });
  });
}

/** Called in the child: sends the report to the parent, if a parent waits for it. */
export async function reportStart(report: StartReport): Promise<void> {
  if (process.send === undefined) return;
  await new Promise<void>((resolve) => {
    process.send?.(report, undefined, undefined, () => resolve());
  });
  // The parent may disconnect first, as soon as it has the report.
  if (process.connected) process.disconnect();
}
