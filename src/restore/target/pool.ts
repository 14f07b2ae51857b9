/**
 * The pool of restore threads. Jobs are started in their order, each on a thread with a free lane. Results arrive in any
 * order. The first failure ends all jobs.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { entryPath } from '../../base/entry.ts';
import { AgentError, toAgentError } from '../../base/errors.ts';
import type { Job, JobResult, ThreadReply, ThreadRequest, ThreadSetup } from './messages.ts';

export interface PoolOptions extends Omit<ThreadSetup, 'stop'> {
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
}

/** Delay in ms before a thread that does not end (a disk that does not answer) is terminated. */
const patienceMs = 5000;

interface Thread {
  readonly worker: Worker;
  busy: number;
}

interface Waiting {
  readonly resolve: (result: JobResult) => void;
  readonly reject: (error: AgentError) => void;
}

export class ThreadPool {
  readonly #threads: Thread[] = [];
  readonly #lanes: number;
  readonly #flag: Int32Array<SharedArrayBuffer>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => this.#fail(toAgentError(this.#signal?.reason));
  #next = 1;
  #failure: AgentError | undefined;
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
    const thread: Thread = { worker, busy: 0 };
    this.#threads.push(thread);
    return new Promise((resolve, reject) => {
      worker.on('message', (reply: ThreadReply) => {
        if ('ready' in reply) {
          resolve();
          return;
        }
        if ('error' in reply) {
          const error = AgentError.fromDocument(reply.error);
          reject(error);
          if (reply.id > 0) this.#settle(thread, reply.id)?.reject(error);
        } else this.#settle(thread, reply.id)?.resolve(reply.result);
      });
      worker.once('error', (cause) => {
        const error = new AgentError('INTERNAL', `a restore thread failed: ${String(cause)}`, { cause });
        reject(error);
        this.#fail(error);
      });
      worker.once('exit', () => {
        this.#threads.splice(this.#threads.indexOf(thread), 1);
        const error = new AgentError('INTERNAL', 'a restore thread ended unexpectedly');
        reject(error);
        if (thread.busy > 0) this.#fail(error);
      });
    });
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
    this.#signal?.removeEventListener('abort', this.#onAbort);
    const ends = this.#threads.map(async ({ worker }) => {
      const exited = once(worker, 'exit').catch(() => undefined);
      if (this.#failure !== undefined) worker.postMessage('abort');
      worker.postMessage('end');
      const force = setTimeout(() => void worker.terminate(), patienceMs);
      await exited;
      clearTimeout(force);
    });
    await Promise.all(ends);
  }

  async #idle(): Promise<Thread> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const idlest = this.#threads.reduce<Thread | undefined>(
        (best, each) => (best === undefined || each.busy < best.busy ? each : best),
        undefined,
      );
      if (idlest === undefined) throw new AgentError('INTERNAL', 'all restore threads have ended');
      if (idlest.busy < this.#lanes) return idlest;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #ask(thread: Thread, job: Job): Promise<JobResult> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = this.#next++;
    thread.busy++;
    thread.worker.postMessage({ id, job } satisfies ThreadRequest);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #settle(thread: Thread, id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    thread.busy--;
    this.#wake?.();
    return waiting;
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = toAgentError(error);
    Atomics.store(this.#flag, 0, 1);
    for (const { worker } of this.#threads) worker.postMessage('abort');
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
    this.#wake?.();
  }
}
