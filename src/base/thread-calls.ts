/**
 * Calls to a worker thread, for all kinds of threads of the agent. The owner of a thread calls it and gets an answer. In
 * both directions there are also messages without an answer: notices to the thread, and events from it. Arguments and
 * results must be cloneable. Errors are sent as documents, because a cloned error has neither code nor hint.
 *
 * A call always ends: if the thread ends, all calls that wait reject.
 */
import type { MessagePort, Worker } from 'node:worker_threads';
import { AgentError, type ErrorDocument, toAgentError } from './errors.ts';

/** The messages of one kind of thread. */
export interface ThreadProtocol {
  /** Calls by name: `{ args: …; result: … }`. */
  readonly calls: object;
  /** Messages to the thread, by name. They overtake calls in progress. */
  readonly notices: object;
  /** Messages from the thread, by name. */
  readonly events: object;
}

type Name<T> = keyof T & string;
type Arguments<Call> = Call extends { args: infer Args } ? Args : never;
type Result<Call> = Call extends { result: infer R } ? R : never;
type Handlers<Messages> = { readonly [N in keyof Messages]: (args: Messages[N]) => void };

type ToThread =
  | { readonly id: number; readonly call: string; readonly args: unknown }
  | { readonly notice: string; readonly args: unknown };

type FromThread =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: ErrorDocument }
  | { readonly event: string; readonly args: unknown };

export interface ThreadOwner<P extends ThreadProtocol> {
  /**
   * Returns the error of the calls that wait when the thread ends. `thrown` is the error that ended the thread;
   * undefined if the thread ended in another way.
   */
  readonly whyEnded: (thrown: Error | undefined) => AgentError;
  readonly events?: Handlers<P['events']>;
  /** Called if the thread has ended, or has exceeded the limit, before the owner called `end`. */
  readonly onEnd?: (error: AgentError) => void;
  /** How long a call may take, milliseconds. After that, the thread is terminated. Default: no limit. */
  readonly limit?: { readonly ms: number; readonly error: () => AgentError };
}

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: AgentError) => void;
  readonly timer: NodeJS.Timeout | undefined;
}

/** Unique in the process: a thread may get another owner, which must not receive answers to the one before. */
let nextId = 1;

/** The owner's side of a thread. */
export class ThreadCalls<P extends ThreadProtocol> {
  /** Resolves when the thread has ended. */
  readonly exited: Promise<void>;
  readonly #worker: Worker;
  readonly #owner: ThreadOwner<P>;
  readonly #waiting = new Map<number, Waiting>();
  #ended: AgentError | undefined;

  /** Adds listeners to the worker, so that the worker keeps the process alive (until `unref`). */
  constructor(worker: Worker, owner: ThreadOwner<P>) {
    this.#worker = worker;
    this.#owner = owner;
    worker.on('message', (message: FromThread) => this.#receive(message));
    worker.on('error', (thrown: unknown) => {
      this.#hasEnded(owner.whyEnded(thrown instanceof Error ? thrown : new Error(String(thrown))));
    });
    this.exited = new Promise((resolve) => {
      worker.on('exit', () => {
        this.#hasEnded(owner.whyEnded(undefined));
        resolve();
      });
    });
  }

  /** True if no more calls are possible. */
  get isEnded(): boolean {
    return this.#ended !== undefined;
  }

  /** Number of calls that wait for their answer. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Rejects with the error of the thread's handler, or with the reason why no more calls are possible. */
  async call<N extends Name<P['calls']>>(
    name: N,
    args: Arguments<P['calls'][N]>,
  ): Promise<Result<P['calls'][N]>> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = nextId++;
    this.#post({ id, call: name, args });
    const { limit } = this.#owner;
    const result = await new Promise<unknown>((resolve, reject) => {
      const timer = limit && setTimeout(() => this.#terminate(limit.error()), limit.ms);
      this.#waiting.set(id, { resolve, reject, timer });
    });
    return result as Result<P['calls'][N]>;
  }

  /** Sends a message that has no answer. A thread that has ended ignores it. */
  notify<N extends Name<P['notices']>>(name: N, args: P['notices'][N]): void {
    this.#post({ notice: name, args });
  }

  /** Rejects all calls that wait, and every later call. The thread itself continues. Only the first call counts. */
  end(error: AgentError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#waiting.clear();
  }

  /** Resolves when the thread has ended. Terminates the thread after `ms` milliseconds. */
  async exitWithin(ms: number): Promise<void> {
    const force = setTimeout(() => void this.#worker.terminate(), ms);
    await this.exited;
    clearTimeout(force);
  }

  #post(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  #hasEnded(error: AgentError): void {
    if (this.#ended !== undefined) return;
    this.end(error);
    this.#owner.onEnd?.(error);
  }

  #terminate(error: AgentError): void {
    this.#hasEnded(error);
    void this.#worker.terminate();
  }

  #receive(message: FromThread): void {
    if ('event' in message) {
      const handlers = this.#owner.events as Record<string, (args: unknown) => void> | undefined;
      handlers?.[message.event]?.(message.args);
      return;
    }
    const call = this.#waiting.get(message.id);
    // The owner may have ended all calls.
    if (call === undefined) return;
    this.#waiting.delete(message.id);
    clearTimeout(call.timer);
    if ('error' in message) call.reject(AgentError.fromDocument(message.error));
    else call.resolve(message.result);
  }
}

export interface ThreadHandlers<P extends ThreadProtocol> {
  /** Returns the result of a call. A call may begin before an earlier one has ended. */
  readonly answer: <N extends Name<P['calls']>>(
    name: N,
    args: Arguments<P['calls'][N]>,
  ) => Result<P['calls'][N]> | Promise<Result<P['calls'][N]>>;
  readonly notices: Handlers<P['notices']>;
}

/** The handlers of all calls of a protocol, by name. */
export type CallHandlers<P extends ThreadProtocol> = {
  readonly [N in Name<P['calls']>]: (
    args: Arguments<P['calls'][N]>,
  ) => Result<P['calls'][N]> | Promise<Result<P['calls'][N]>>;
};

/** The thread's side: answers calls from now on. `notify` sends an event. Both must be called in the thread. */
export function answerCalls<P extends ThreadProtocol>(
  port: MessagePort,
  { answer, notices }: ThreadHandlers<P>,
): { notify<N extends Name<P['events']>>(event: N, args: P['events'][N]): void } {
  const post = (message: FromThread): void => port.postMessage(message);
  const reply = async (id: number, call: string, args: unknown): Promise<void> => {
    try {
      post({ id, result: await answer(call as never, args as never) });
    } catch (thrown) {
      post({ id, error: toAgentError(thrown).toDocument() });
    }
  };
  port.on('message', (message: ToThread) => {
    if ('call' in message) void reply(message.id, message.call, message.args);
    else (notices as Record<string, (args: unknown) => void>)[message.notice]?.(message.args);
  });
  return { notify: (event, args) => post({ event, args }) };
}
