/**
 * A store that fails when a test wants it: before or after a request was carried out, or with a late effect.
 * It can also "kill" the process in the middle of a request.
 *
 *     const store = faultyStore(memory, { fate: nth(5, { kind: 'fail', happened: true }, 'put') });
 *     const store = faultyStore(memory, { fate: killAtWrite(17, false), onKill: () => … });
 */
import { type Clock, systemClock } from '../../../src/base/clock.ts';
import { AgentError } from '../../../src/base/errors.ts';
import {
  type ObjectData,
  type ObjectStore,
  type PutOptions,
  checkKey,
  dataParts,
} from '../../../src/vault/store/object-store.ts';
import {
  type StoreRequest,
  type StoreRequestKind,
  WrappedStore,
} from '../../../src/vault/store/wrapped-store.ts';

/** The outcome of a request; undefined: it is carried out. */
export type Fate =
  /** The request fails, before or after it was carried out. Default error: VAULT_UNREACHABLE. */
  | { readonly kind: 'fail'; readonly happened: boolean; readonly error?: AgentError }
  /** The request fails, and is carried out when the test calls `land`. */
  | { readonly kind: 'late' }
  /** The request waits this many milliseconds first. */
  | { readonly kind: 'slow'; readonly ms: number }
  /** The process ends here: `onKill` is called, and this and all later requests fail with StoreKilled. */
  | { readonly kind: 'kill'; readonly happened: boolean };

export interface CountedRequest extends StoreRequest {
  /** Its number among all requests, from 0. */
  readonly number: number;
  /** Its number among puts and deletes, from 0; undefined for other requests. */
  readonly write: number | undefined;
}

export interface StoreFaults {
  readonly fate: (request: CountedRequest) => Fate | undefined;
  readonly onKill?: () => void;
  readonly clock?: Clock;
}

export interface FaultyStore extends ObjectStore {
  /** Carries out late requests, all or the `count` oldest. Requests that fail now are dropped. */
  land(count?: number): Promise<void>;
  /** Number of late requests. */
  readonly pending: number;
  /** Number of requests and of writes so far. */
  readonly requests: number;
  readonly writes: number;
  readonly killed: boolean;
}

/** The error that a "killed" process gets. It is not an AgentError, so no code handles it. */
export class StoreKilled extends Error {
  constructor() {
    super('the process was killed at this write (injected)');
    this.name = 'StoreKilled';
  }
}

export function faultyStore(store: ObjectStore, faults: StoreFaults): FaultyStore {
  return new Faulty(store, faults);
}

/** Returns a fate for the `n`th request (from 0), of one kind or of all. */
export function nth(n: number, fate: Fate, kind?: StoreRequestKind): StoreFaults['fate'] {
  let count = 0;
  return (request) => ((kind === undefined || request.kind === kind) && count++ === n ? fate : undefined);
}

/** Kills at the `n`th put or delete (from 0), before or after it happened. */
export function killAtWrite(n: number, happened: boolean): StoreFaults['fate'] {
  return ({ write }) => (write === n ? { kind: 'kill', happened } : undefined);
}

/**
 * Returns a fate by which each request fails with this probability. Half of the failed writes happen, some of them
 * late.
 */
export function randomTrouble(random: () => number, probability: number): StoreFaults['fate'] {
  return ({ write }) => {
    if (random() >= probability) return undefined;
    if (write === undefined) return { kind: 'fail', happened: false };
    const kind = random();
    return kind < 0.25 ? { kind: 'late' } : { kind: 'fail', happened: kind < 0.5 };
  };
}

/** Returns the error for an answer with this status. */
export function answered(status: 500 | 503): AgentError {
  return new AgentError('VAULT_UNREACHABLE', `injected: the server answered ${status}`);
}

class Faulty extends WrappedStore implements FaultyStore {
  readonly #faults: StoreFaults;
  readonly #late: (() => Promise<unknown>)[] = [];
  requests = 0;
  writes = 0;
  killed = false;

  constructor(inner: ObjectStore, faults: StoreFaults) {
    super(inner);
    this.#faults = faults;
  }

  get pending(): number {
    return this.#late.length;
  }

  async land(count = Infinity): Promise<void> {
    for (const request of this.#late.splice(0, count)) await request().catch(() => undefined);
  }

  /** The bytes are copied: a late put stores the bytes of the call, even if the caller has changed its memory. */
  override async put(key: string, data: ObjectData, { signal, isNew }: PutOptions = {}): Promise<void> {
    checkKey(key);
    signal?.throwIfAborted();
    const sent = Buffer.concat(dataParts(data));
    // A server completes a received request even if the client's signal fires.
    await this.around({ kind: 'put', key, bytes: sent.length, signal }, () =>
      this.inner.put(key, sent, { isNew }),
    );
  }

  protected override async around<T>(what: StoreRequest, request: () => Promise<T>): Promise<T> {
    const fate = this.#fateOf(what);
    if (fate?.kind === 'late') {
      this.#late.push(request);
      throw injected(what, 'may come late');
    }
    if (fate?.kind === 'slow') await (this.#faults.clock ?? systemClock).sleep(fate.ms, what.signal);
    if (fate?.kind === 'kill') return this.#kill(fate.happened, request);
    if (fate?.kind === 'fail' && !fate.happened) throw fate.error ?? injected(what, 'did not happen');
    const result = await request();
    // The process may have been killed while this request was running, so there is no answer.
    if (this.killed) throw new StoreKilled();
    if (fate?.kind === 'fail') throw fate.error ?? injected(what, 'happened');
    return result;
  }

  protected override async *walk<T>(
    what: StoreRequest,
    begin: (after: string | undefined) => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    const fate = this.#fateOf(what);
    if (fate?.kind === 'kill') return this.#kill(false, () => Promise.resolve());
    if (fate?.kind === 'slow') await (this.#faults.clock ?? systemClock).sleep(fate.ms, what.signal);
    const failure = fate?.kind === 'fail' || fate?.kind === 'late';
    if (fate?.kind === 'fail' && !fate.happened) throw fate.error ?? injected(what, 'did not happen');
    let first = true;
    for await (const item of begin(undefined)) {
      if (this.killed) throw new StoreKilled();
      // A listing that "happened" breaks off in the middle.
      if (failure && !first) break;
      first = false;
      yield item;
    }
    if (failure) throw injected(what, 'broke off');
    return undefined;
  }

  async #kill<T>(happened: boolean, request: () => Promise<T>): Promise<never> {
    this.killed = true;
    if (happened) await request();
    this.#faults.onKill?.();
    throw new StoreKilled();
  }

  #fateOf(what: StoreRequest): Fate | undefined {
    if (this.killed) throw new StoreKilled();
    const write = what.kind === 'put' || what.kind === 'delete' ? this.writes++ : undefined;
    return this.#faults.fate({ ...what, number: this.requests++, write });
  }
}

function injected({ kind, key }: StoreRequest, what: string): AgentError {
  return new AgentError('VAULT_UNREACHABLE', `injected: ${kind} ${key} failed and ${what}`);
}
