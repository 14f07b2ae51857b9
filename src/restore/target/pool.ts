/**
 * The pool of restore threads. Jobs are started in their order, each on a thread with a free lane. Results arrive in any
 * order. The first failure ends all jobs.
 */
import { Worker } from 'node:worker_threads';
import { entryPath } from '../../base/entry.ts';
import { AgentError, toAgentError } from '../../base/errors.ts';
import { ThreadCalls } from '../../base/thread-calls.ts';
import type { Job, JobResult, RestoreProtocol, ThreadSetup } from './thread-messages.ts';

export interface PoolOptions extends Omit<ThreadSetup, 'stop'> {
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
}

/** Delay in ms before a thread that does not end (a disk that does not answer) is terminated. */
const patienceMs = 5000;

interface Thread {
  readonly calls: ThreadCalls<RestoreProtocol>;
  busy: number;
}

export class ThreadPool {
  readonly #threads: Thread[] = [];
  readonly #lanes: number;
  readonly #flag: Int32Array<SharedArrayBuffer>;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => this.#fail(toAgentError(this.#signal?.reason));
  #failure: AgentError | undefined;
  #closing = false;
  #wake: (() => void) | undefined;

  private constructor({ lanes, signal }: PoolOptions) {
    this.#lanes = lanes;
    this.#signal = signal;
    this.#flag = new Int32Array(new SharedArrayBuffer(4));
  }

  /** Throws CANCELLED, and the errors of opening the image or the destination. */
  static async start(options: PoolOptions): Promise<ThreadPool> {
    const pool = new ThreadPool(options);
    const { threads, signal, ...setup } = options;
    signal?.throwIfAborted();
    signal?.addEventListener('abort', pool.#onAbort, { once: true });
    const ready = Array.from({ length: threads }, () => pool.#startThread(setup));
    try {
      await Promise.all(ready);
      return pool;
    } catch (error) {
      pool.#fail(error);
      await pool.close();
      throw error;
    }
  }

  #startThread(setup: Omit<ThreadSetup, 'stop'>): Promise<void> {
    const workerData: ThreadSetup = { ...setup, stop: this.#flag.buffer };
    const worker = new Worker(entryPath(import.meta.url, './restore-worker.ts'), {
      workerData,
      name: 'restore',
      resourceLimits: { maxYoungGenerationSizeMb: 16, maxOldGenerationSizeMb: 128 },
    });
    const calls = new ThreadCalls<RestoreProtocol>(worker, {
      whyEnded: (cause) =>
        cause === undefined
          ? new AgentError('INTERNAL', 'a restore thread ended unexpectedly')
          : new AgentError('INTERNAL', `a restore thread failed: ${String(cause)}`, { cause }),
      onEnd: (error) => {
        if (!this.#closing) this.#fail(error);
      },
    });
    this.#threads.push({ calls, busy: 0 });
    return calls.call('open', undefined);
  }

  /** Runs all jobs and calls `done` with each result. After a failure, rejects once no job is running any more. */
  async run<Each extends Job>(
    jobs: AsyncIterable<Each> | Iterable<Each>,
    done: (job: Each, result: JobResult) => void,
  ): Promise<void> {
    const underWay = new Set<Promise<void>>();
    try {
      for await (const job of jobs) {
        const thread = await this.#idle();
        const work = this.#ask(thread, job)
          .then((result) => done(job, result))
          .catch((error: unknown) => this.#fail(error));
        underWay.add(work);
        void work.finally(() => underWay.delete(work));
      }
    } catch (error) {
      this.#fail(error);
    }
    await Promise.all(underWay);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Runs one job. */
  async one(job: Job): Promise<JobResult> {
    return this.#ask(await this.#idle(), job);
  }

  /** Runs a job on every thread. */
  async each(job: Job): Promise<void> {
    await Promise.all(this.#threads.map((thread) => this.#ask(thread, job)));
  }

  /** Safe to call twice. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#signal?.removeEventListener('abort', this.#onAbort);
    const ends = this.#threads.map(async ({ calls }) => {
      if (this.#failure !== undefined) calls.notify('abort', undefined);
      calls.notify('end', undefined);
      await calls.exitWithin(patienceMs);
    });
    await Promise.all(ends);
  }

  async #idle(): Promise<Thread> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const idlest = this.#threads.reduce((best, each) => (each.busy < best.busy ? each : best));
      if (idlest.busy < this.#lanes) return idlest;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async #ask(thread: Thread, job: Job): Promise<JobResult> {
    if (this.#failure !== undefined) throw this.#failure;
    thread.busy++;
    try {
      return await thread.calls.call('run', job);
    } finally {
      thread.busy--;
      this.#wake?.();
    }
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = toAgentError(error);
    Atomics.store(this.#flag, 0, 1);
    for (const { calls } of this.#threads) {
      calls.notify('abort', undefined);
      calls.end(this.#failure);
    }
    this.#wake?.();
  }
}
