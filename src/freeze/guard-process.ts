/** The agent's handle of the guard: a child process that takes one command at a time. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { entryPath, nodeFlags } from '../base/entry.ts';
import { AgentError, toAgentError } from '../base/errors.ts';
import { identifyProcess } from '../linux/process.ts';
import { type Answer, type Command, encodeLine, type FreezeReport, lineSplitter } from './guard-messages.ts';

/** Milliseconds to wait until the guard is ready. */
const startPatience = 20_000;
/** Milliseconds to wait for its exit after its input has ended. It takes long only if a freeze hangs in the kernel. */
const endPatience = 5_000;

interface Waiting {
  resolve(answer: Answer): void;
  reject(error: AgentError): void;
}

export class GuardProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #exited: Promise<void>;
  #waiting: Waiting | undefined;
  #onExpired: (why: 'deadline' | 'signal') => void = () => undefined;
  #onExit: () => void = () => undefined;
  #onFreezing: () => void = () => undefined;
  /** The last part of its standard error, kept in memory. */
  #complaint = '';
  #gone = false;

  /** Starts the guard. `filesystems` sets the size of its thread pool: each filesystem may block one or two threads. */
  constructor(filesystems: number) {
    const entry = fileURLToPath(entryPath(import.meta.url, './guard-main.ts'));
    this.#child = spawn(process.execPath, [...nodeFlags, entry], {
      // The guard must not depend on the agent's working directory or on signals of a terminal.
      cwd: '/',
      detached: true,
      env: { UV_THREADPOOL_SIZE: String(2 * filesystems + 4) },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child.stdin.on('error', () => undefined);
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#complaint = (this.#complaint + text).slice(-2000);
    });
    this.#child.stdout.setEncoding('utf8').on(
      'data',
      lineSplitter((line) => this.#hear(JSON.parse(line) as Answer)),
    );
    this.#exited = new Promise((resolve) => {
      // `close` comes after all output was read. If the process could not be started, only `error` comes.
      this.#child.once('close', () => this.#ended(resolve));
      this.#child.once('error', (cause) => {
        this.#complaint = cause.message;
        if (this.#child.pid === undefined) this.#ended(resolve);
      });
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  onExpired(listener: (why: 'deadline' | 'signal') => void): void {
    this.#onExpired = listener;
  }

  /** Called when the first filesystem begins to freeze. */
  onFreezing(listener: () => void): void {
    this.#onFreezing = listener;
  }

  /** Called once when the process has ended, before the waiting command is rejected. */
  onExit(listener: () => void): void {
    this.#onExit = listener;
  }

  async prepare(
    options: { mounts: readonly string[]; maxFreezeMs: number; runDirectory: string },
    signal?: AbortSignal,
  ): Promise<void> {
    const patience = AbortSignal.timeout(startPatience);
    const { mounts, maxFreezeMs, runDirectory } = options;
    const agent = await identifyProcess(process.pid);
    await this.#ask(
      { do: 'prepare', mounts, maxFreezeMs, runDirectory, agent },
      'ready',
      signal === undefined ? patience : AbortSignal.any([patience, signal]),
    );
  }

  freeze(signal?: AbortSignal): Promise<Extract<Answer, { is: 'frozen' }>> {
    return this.#ask({ do: 'freeze' }, 'frozen', signal);
  }

  async thaw(): Promise<FreezeReport> {
    return (await this.#ask({ do: 'thaw' }, 'thawed')).report;
  }

  /**
   * Ends the guard's input, so it thaws and exits, and waits for the exit. A guard that does not exit in time is
   * killed. A killed process ends only after a freeze that it is calling has returned. So the agent can then thaw this
   * filesystem too.
   */
  async end(): Promise<void> {
    if (this.#gone) return;
    this.#child.stdin.end(encodeLine({ do: 'leave' }));
    const timer = setTimeout(() => this.kill(), endPatience);
    await this.#exited;
    clearTimeout(timer);
  }

  kill(): void {
    if (!this.#gone) this.#child.kill('SIGKILL');
  }

  #ask<K extends Answer['is']>(
    command: Command,
    expected: K,
    signal?: AbortSignal,
  ): Promise<Extract<Answer, { is: K }>> {
    return new Promise((resolve, reject) => {
      if (this.#gone) {
        reject(this.#lost());
        return;
      }
      const settle = (): void => {
        this.#waiting = undefined;
        signal?.removeEventListener('abort', onAbort);
      };
      const onAbort = (): void => {
        settle();
        reject(
          signal?.reason instanceof DOMException && signal.reason.name === 'TimeoutError'
            ? new AgentError('FREEZE_FAILED', `The freeze guard did not come up within ${startPatience} ms`)
            : toAgentError(signal?.reason),
        );
      };
      this.#waiting = {
        resolve: (answer) => {
          settle();
          if (answer.is === expected) resolve(answer as Extract<Answer, { is: K }>);
          else if (answer.is === 'failed') reject(AgentError.fromDocument(answer.error));
          else reject(new AgentError('INTERNAL', `the guard answered ${answer.is} to ${command.do}`));
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      };
      if (signal?.aborted === true) {
        onAbort();
        return;
      }
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#child.stdin.write(encodeLine(command));
    });
  }

  #hear(answer: Answer): void {
    if (answer.is === 'expired') this.#onExpired(answer.why);
    else if (answer.is === 'freezing') this.#onFreezing();
    else this.#waiting?.resolve(answer);
  }

  #ended(resolve: () => void): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#onExit();
    this.#waiting?.reject(this.#lost());
    resolve();
  }

  #lost(): AgentError {
    const last = this.#complaint.trim().split('\n').at(-1) ?? '';
    return new AgentError(
      'FREEZE_FAILED',
      `The freeze guard ended unexpectedly${last === '' ? '' : `: ${last}`}`,
      {
        hint: 'look for what killed it (the kernel log names the OOM killer)',
      },
    );
  }
}
