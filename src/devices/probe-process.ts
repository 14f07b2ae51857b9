/**
 * Reads what is on devices in a process of its own. A read from a dead disk, or from a loop device whose file hangs, can
 * not even be interrupted by SIGKILL, and its process does not end before the read returns. In the daemon such a read
 * would keep the daemon's locks, and no other daemon could start. The reader process is started when it is needed and ends
 * when it has been idle for a while, or with its parent.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { entryPath, nodeFlags } from '../base/entry.ts';
import type { Probed } from './probe-device.ts';

export interface ProbeQuestion {
  readonly id: number;
  /** Of the device. */
  readonly path: string;
}

export type ProbeAnswer =
  { readonly id: number; readonly probed: Probed } | { readonly id: number; readonly error: string };

interface Waiting {
  readonly resolve: (probed: Probed) => void;
  readonly reject: (error: Error) => void;
}

/** Milliseconds without a question after which the process is not kept. */
const idleMs = 60_000;

class ProbeProcess {
  #child: ChildProcess | undefined;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  #idle: NodeJS.Timeout | undefined;

  ask(path: string): Promise<Probed> {
    const child = (this.#child ??= this.#start());
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      clearTimeout(this.#idle);
      child.ref();
      child.channel?.ref();
      child.send({ id, path } satisfies ProbeQuestion, (error) => {
        if (error !== null) this.#lost(child, error);
      });
    });
  }

  #start(): ChildProcess {
    const entry = fileURLToPath(entryPath(import.meta.url, './probe-main.ts'));
    const child = fork(entry, [], {
      cwd: '/',
      // No terminal's signals.
      detached: true,
      execArgv: [...nodeFlags],
      env: { ...process.env, UV_THREADPOOL_SIZE: '64' },
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    child.on('message', (answer: ProbeAnswer) => this.#hear(child, answer));
    child.once('error', (error) => this.#lost(child, error));
    child.once('exit', () => this.#lost(child, new Error('the process that reads devices ended')));
    return child;
  }

  #hear(child: ChildProcess, answer: ProbeAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if ('probed' in answer) waiting?.resolve(answer.probed);
    else waiting?.reject(new Error(answer.error));
    if (this.#waiting.size > 0) return;
    // Nothing is asked now: the process must not keep its parent.
    child.unref();
    child.channel?.unref();
    this.#idle = setTimeout(() => child.disconnect(), idleMs).unref();
  }

  #lost(child: ChildProcess, error: Error): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    clearTimeout(this.#idle);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

const reader = new ProbeProcess();

/** Reads what is on the device, as `probeDevice` does, in the reader process. Rejects if the device cannot be read. */
export function probeElsewhere(path: string): Promise<Probed> {
  return reader.ask(path);
}
