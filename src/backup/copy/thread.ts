/** A copying thread as the coordinator sees it. Its calls are typed, and it always ends. */
import { AgentError } from '../../base/errors.ts';
import { ThreadCalls } from '../../base/thread-calls.ts';
import { giveBackWorker, takeWorker } from './idle-workers.ts';
import type { CopyProtocol, ThreadSetup } from './messages.ts';

/** Milliseconds. A thread that should end is then ended by force: it may wait for a read of a failing disk. */
const patienceMs = 5000;

export class CopyThread {
  readonly call: ThreadCalls<CopyProtocol>['call'];
  readonly #worker = takeWorker();
  readonly #calls: ThreadCalls<CopyProtocol>;
  #aborted = false;

  constructor(setup: ThreadSetup) {
    this.#calls = new ThreadCalls<CopyProtocol>(this.#worker, {
      whyEnded: (thrown) =>
        thrown === undefined
          ? new AgentError('CANCELLED', 'The copying thread has ended')
          : new AgentError('INTERNAL', `copying thread: ${String(thrown)}`),
    });
    this.call = this.#calls.call.bind(this.#calls);
    this.#calls.notify('begin', setup);
  }

  /** Breaks the thread's connection. Calls under way reject soon, by force if the thread does not react. */
  abort(): void {
    // The thread may serve another job by now.
    if (this.#calls.isEnded) return;
    this.#aborted = true;
    this.#calls.notify('abort', undefined);
    const force = setTimeout(() => {
      if (this.#calls.waiting === 0) return;
      this.#calls.end(new AgentError('CANCELLED', 'The copying thread did not answer and was ended'));
      void this.#worker.terminate();
    }, patienceMs);
    void this.#calls.exited.then(() => clearTimeout(force));
  }

  /**
   * Ends the job of the thread, and keeps the thread for the next job. Ends the thread by force if that takes too long.
   */
  async close(): Promise<void> {
    const force = setTimeout(() => void this.#worker.terminate(), patienceMs);
    try {
      const isClosed = !this.#calls.isEnded && (await this.#closed());
      // A thread whose connection was broken may still be in the middle of a task.
      if (isClosed && !this.#aborted) {
        this.#calls.end(new AgentError('CANCELLED', 'The copying thread has ended its job'));
        giveBackWorker(this.#worker);
        return;
      }
      void this.#worker.terminate();
      await this.#calls.exited;
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
}
