/** A copying thread seen from the coordinator: typed calls, and an end that always comes. */
import type { Worker } from 'node:worker_threads';
import { AgentError } from '../../base/errors.ts';
import { giveBackWorker, takeWorker } from './idle-workers.ts';
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
  #aborted = false;

  constructor(setup: ThreadSetup) {
    this.#worker = takeWorker();
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
    this.#post({ call: 'begin', setup });
  }

  async call<Name extends CallName>(
    name: Name,
    args: ThreadCalls[Name]['args'],
  ): Promise<ThreadCalls[Name]['result']> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = this.#next++;
    const result = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#post({ id, call: name, args } as ThreadRequest);
    return (await result) as ThreadCalls[Name]['result'];
  }

  /** Breaks the thread's connection; calls under way reject soon, by force if the thread does not listen. */
  abort(): void {
    // The thread may serve another job by now.
    if (this.#ended !== undefined) return;
    this.#aborted = true;
    this.#post({ call: 'abort' });
    const force = setTimeout(() => {
      if (this.#waiting.size === 0) return;
      this.#end(new AgentError('CANCELLED', 'The copying thread did not answer and was ended'));
      void this.#worker.terminate();
    }, patienceMs);
    void this.#exited.then(() => clearTimeout(force));
  }

  /** Ends the job of the thread politely, and keeps the thread for the next job. Ends the thread by force if that takes too long. */
  async close(): Promise<void> {
    const force = setTimeout(() => void this.#worker.terminate(), patienceMs);
    try {
      const isClosed = this.#ended === undefined && (await this.#closed());
      // A thread whose connection was broken may still be in the middle of something.
      if (isClosed && !this.#aborted) {
        this.#end(new AgentError('CANCELLED', 'The copying thread has ended its job'));
        giveBackWorker(this.#worker);
        return;
      }
      void this.#worker.terminate();
      await this.#exited;
    } finally {
      clearTimeout(force);
    }
  }

  /** True if the thread has closed everything. */
  async #closed(): Promise<boolean> {
    try {
      await this.call('close', undefined);
      return true;
    } catch {
      return false;
    }
  }

  #post(request: ThreadRequest): void {
    this.#worker.postMessage(request);
  }

  #end(error: AgentError): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}
