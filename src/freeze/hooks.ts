/** Runs an administrator's hook: an executable that quiesces an application before the freeze, or resumes it. */
import { spawn } from 'node:child_process';
import { AgentError } from '../base/errors.ts';
import { checkTrusted } from '../base/trusted-file.ts';
import { programDirectories } from '../linux/program.ts';

export interface HookOptions {
  /** Milliseconds after which the hook is killed. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** Characters of the output that are kept for the error message. */
const keptOutput = 4000;

/**
 * The environment of a hook, in addition to its own variables. The daemon's environment is not passed. It may contain
 * credentials of a bucket, and it depends on the shell that started the daemon.
 */
const hookEnvironment = { PATH: programDirectories.join(':'), LANG: 'C.UTF-8' };

/** Throws UNSAFE_FILE if another user may change the hook. A missing hook is reported only when it is run. */
export async function checkHook(path: string): Promise<void> {
  await checkTrusted(path, 'hook').catch((thrown: unknown) => {
    if (thrown instanceof AgentError) throw thrown;
  });
}

/**
 * Runs the executable without arguments. Its environment is only `env`, PATH and LANG. Resolves when it exits with 0,
 * even if child processes still run. Throws HOOK_FAILED with the exit status and the last line of standard error. This
 * includes a hook that cannot be started or is too slow. Throws UNSAFE_FILE if another user may change the hook, and
 * CANCELLED if the signal fires. If the hook is too slow or cancelled, it is killed with its children.
 */
export async function runHook(
  path: string,
  env: Readonly<Record<string, string>>,
  options: HookOptions,
): Promise<void> {
  await checkHook(path);
  await run(path, env, options);
}

function run(path: string, env: Readonly<Record<string, string>>, options: HookOptions): Promise<void> {
  const { timeoutMs, signal } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(new AgentError('CANCELLED', 'Cancelled', { cause: signal.reason }));
      return;
    }
    // Its own process group, so a shell script can be killed with all its children.
    const child = spawn(path, [], {
      cwd: '/',
      detached: true,
      env: { ...hookEnvironment, ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let complaint = '';
    let ending: AgentError | undefined;
    const end = (error: AgentError): void => {
      ending ??= error;
      if (child.pid === undefined) return;
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // The hook has ended in the meantime.
      }
    };
    const onAbort = (): void => end(new AgentError('CANCELLED', 'Cancelled', { cause: signal?.reason }));
    const timer = setTimeout(
      () => end(hookError(path, `was not done after ${timeoutMs} ms and was killed`, complaint)),
      timeoutMs,
    );
    const settle = (error: AgentError | undefined): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      child.stderr.destroy();
      if (error === undefined) resolve();
      else reject(error);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-keptOutput);
    });
    child.once('error', (cause) => {
      if (child.pid === undefined)
        settle(hookError(path, `could not be started: ${cause.message}`, '', cause));
    });
    child.once('exit', (code, killer) => {
      // Its last output may still be in the pipe.
      setImmediate(() => {
        if (ending !== undefined) settle(ending);
        else if (code === 0) settle(undefined);
        else
          settle(
            hookError(
              path,
              code === null ? `was killed by ${killer ?? 'a signal'}` : `exited with ${code}`,
              complaint,
            ),
          );
      });
    });
  });
}

function hookError(path: string, what: string, complaint: string, cause?: unknown): AgentError {
  const last = complaint.trimEnd().split('\n').at(-1) ?? '';
  return new AgentError('HOOK_FAILED', `The hook ${path} ${what}${last === '' ? '' : `: ${last}`}`, {
    hint: 'run the hook by hand to see what it says; it must be executable and exit with 0',
    cause,
  });
}
