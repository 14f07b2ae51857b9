/** The tracker's interface to the reader's thread: typed calls, and a report whenever the thread ends. */
import { Worker } from 'node:worker_threads';
import { entryPath } from '../../base/entry.ts';
import { AgentError } from '../../base/errors.ts';
import type { CallName, ReaderCalls, ReaderReply, ReaderRequest } from './messages.ts';

/** Milliseconds without an answer after which the thread counts as hung. A drain takes some time. */
const patienceMs = 20_000;

export interface ReaderEvents {
  /** The trace of a disk is lost, or of one device on it. */
  readonly lost: (disk: string, key: string | undefined, reason: string) => void;
  /** The thread has ended, and with it all maps that it kept. */
  readonly ended: (reason: string) => void;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: AgentError) => void;
  readonly timer: NodeJS.Timeout;
}

export class ReaderThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #exited: Promise<void>;
  readonly #events: ReaderEvents;
  #next = 1;
  #ended: AgentError | undefined;
  #closing = false;

  constructor(events: ReaderEvents) {
    this.#events = events;
    this.#worker = new Worker(entryPath(import.meta.url, './blktrace-worker.ts'), {
      name: 'blktrace',
      // Records are read into buffers outside these heaps.
      resourceLimits: { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 128 },
    });
    this.#worker.on('message', (reply: ReaderReply) => this.#receive(reply));
    this.#worker.on('error', (error) =>
      this.#end(`the thread that reads the traces failed: ${String(error)}`),
    );
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#end('the thread that reads the traces has ended');
        resolve();
      });
    });
    // After the listeners are added, because adding them keeps the process alive.
    this.#worker.unref();
  }

  async call<Name extends CallName>(
    name: Name,
    args: ReaderCalls[Name]['args'],
  ): Promise<ReaderCalls[Name]['result']> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = this.#next++;
    const result = new Promise<unknown>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#end(`the thread that reads the traces has not answered for ${patienceMs / 1000} s`);
        void this.#worker.terminate();
      }, patienceMs);
      this.#waiting.set(id, { resolve, reject, timer });
    });
    this.#worker.postMessage({ id, call: name, args });
    return (await result) as ReaderCalls[Name]['result'];
  }

  commit(disk: string, key: string, generation: number): void {
    this.#worker.postMessage({ call: 'commit', disk, key, generation } satisfies ReaderRequest);
  }

  /** Ends the thread; by force if it does not end soon. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#worker.postMessage({ call: 'end' } satisfies ReaderRequest);
    const force = setTimeout(() => void this.#worker.terminate(), 5000);
    await this.#exited;
    clearTimeout(force);
  }

  #receive(reply: ReaderReply): void {
    if ('lost' in reply) {
      this.#events.lost(reply.lost, reply.key, reply.reason);
      return;
    }
    const call = this.#waiting.get(reply.id);
    if (call === undefined) return;
    this.#waiting.delete(reply.id);
    clearTimeout(call.timer);
    if ('error' in reply) call.reject(AgentError.fromDocument(reply.error));
    else call.resolve(reply.result);
  }

  #end(reason: string): void {
    if (this.#ended !== undefined) return;
    this.#ended = new AgentError('EPOCH_ENDED', reason);
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(this.#ended);
    }
    this.#waiting.clear();
    if (!this.#closing) this.#events.ended(reason);
  }
}
