/** A copying thread seen from the coordinator: typed calls, and an end that always comes. */
import { Worker } from 'node:worker_threads';
import { entryPath } from '../../base/entry.ts';
import { AgentError } from '../../base/errors.ts';
import type { CallName, ThreadCalls, ThreadReply, ThreadRequest, ThreadSetup } from './messages.ts';

/** After this a thread that was told to end is ended by force (it may sit in a read of a failing disk). */
const patienceMs = 5000;

export class CopyThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: AgentError) => void }
  >();
  readonly #exited: Promise<void>;
  #next = 1;
  #ended: AgentError | undefined;

  constructor(setup: ThreadSetup) {
    this.#worker = new Worker(entryPath(import.meta.url, '../copy-worker.ts'), {
      workerData: setup,
      name: `copy-${setup.thread}`,
      // The buffers lie outside these heaps; small heaps keep the daemon small.
      resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 },
    });
    this.#worker.on('message', (reply: ThreadReply) => {
      const call = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if ('error' in reply) call?.reject(AgentError.fromDocument(reply.error));
      else call?.resolve(reply.result);
    });
    this.#worker.on('error', (error) =>
      this.#end(new AgentError('INTERNAL', `copying thread: ${String(error)}`)),
    );
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#end(new AgentError('CANCELLED', 'The copying thread has ended'));
        resolve();
      });
    });
  }

  async call<Name extends CallName>(
    name: Name,
    args: ThreadCalls[Name]['args'],
  ): Promise<ThreadCalls[Name]['result']> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = this.#next++;
    const result = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#worker.postMessage({ id, call: name, args });
    return (await result) as ThreadCalls[Name]['result'];
  }

  /** Breaks the thread's connection; calls under way reject soon, by force if the thread does not listen. */
  abort(): void {
    this.#worker.postMessage({ id: 0, call: 'abort' } satisfies ThreadRequest);
    const force = setTimeout(() => {
      if (this.#waiting.size === 0) return;
      this.#end(new AgentError('CANCELLED', 'The copying thread did not answer and was ended'));
      void this.#worker.terminate();
    }, patienceMs);
    void this.#exited.then(() => clearTimeout(force));
  }

  /** Ends politely; by force where that takes too long. */
  async close(): Promise<void> {
    if (this.#ended === undefined) this.call('close', undefined).catch(() => undefined);
    const force = setTimeout(() => void this.#worker.terminate(), patienceMs);
    await this.#exited;
    clearTimeout(force);
  }

  #end(error: AgentError): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}
