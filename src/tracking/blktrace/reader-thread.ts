/** The tracker's interface to the reader's thread. Reports whenever the thread ends. */
import { Worker } from 'node:worker_threads';
import { entryPath } from '../../base/entry.ts';
import { AgentError } from '../../base/errors.ts';
import { ThreadCalls } from '../../base/thread-calls.ts';
import type { ReaderProtocol } from './reader-messages.ts';

/** Milliseconds without an answer after which the thread counts as hung. A drain takes some time. */
const patienceMs = 20_000;
/** Milliseconds that the thread has to end, before it is terminated. */
const endMs = 5000;

export interface ReaderEvents {
  /** The trace of a disk is lost, or of one device on it. */
  readonly lost: (disk: string, key: string | undefined, reason: string) => void;
  /** The thread has ended, and with it all maps that it kept. */
  readonly ended: (reason: string) => void;
}

export class ReaderThread {
  readonly #calls: ThreadCalls<ReaderProtocol>;
  readonly call: ThreadCalls<ReaderProtocol>['call'];
  #closing = false;

  constructor(events: ReaderEvents) {
    const worker = new Worker(entryPath(import.meta.url, './blktrace-worker.ts'), {
      name: 'blktrace',
      // Records are read into buffers outside these heaps.
      resourceLimits: { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 128 },
    });
    const ended = (how: string): AgentError =>
      new AgentError('EPOCH_ENDED', `the thread that reads the traces ${how}`);
    this.#calls = new ThreadCalls(worker, {
      whyEnded: (thrown) => ended(thrown === undefined ? 'has ended' : `failed: ${String(thrown)}`),
      onEnd: (error) => {
        if (!this.#closing) events.ended(error.message);
      },
      limit: { ms: patienceMs, error: () => ended(`has not answered for ${patienceMs / 1000} s`) },
      events: { lost: ({ disk, key, reason }) => events.lost(disk, key, reason) },
    });
    this.call = this.#calls.call.bind(this.#calls);
    // After the listeners are added, because adding them keeps the process alive.
    worker.unref();
  }

  commit(disk: string, key: string, generation: number): void {
    this.#calls.notify('commit', { disk, key, generation });
  }

  /** Ends the thread; by force if it does not end soon. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#calls.notify('end', undefined);
    await this.#calls.exitWithin(endMs);
  }
}
