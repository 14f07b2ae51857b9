/**
 * A store that fails where a test says so: before a request was carried out or after, with the effect coming late, or
 * with the process "killed" in the middle of it.
 *
 *     const store = faultyStore(memory, { fate: nth(5, { kind: 'fail', happened: true }, 'put') });
 *     const store = faultyStore(memory, { fate: killAtWrite(17, false), onKill: () => … });
 */
import { type Clock, systemClock } from '../../base/clock.ts';
import { AgentError } from '../../base/errors.ts';
import { type ObjectData, type ObjectStore, type PutOptions, checkKey, dataParts } from './object-store.ts';
import { type StoreRequest, type StoreRequestKind, WrappedStore } from './wrapped-store.ts';

/** What becomes of a request; undefined: it is carried out. */
export type Fate =
  /** It fails, with nothing done or with all done. Default error: VAULT_UNREACHABLE. */
  | { readonly kind: 'fail'; readonly happened: boolean; readonly error?: AgentError }
  /** It fails, and is carried out when the test calls `land`. */
  | { readonly kind: 'late' }
  /** It waits so many milliseconds first. */
  | { readonly kind: 'slow'; readonly ms: number }
  /** The process ends here: `onKill` is called, and this and all later requests fail with StoreKilled. */
  | { readonly kind: 'kill'; readonly happened: boolean };

export interface CountedRequest extends StoreRequest {
  /** Its number among all requests, from 0. */
  readonly number: number;
  /** Its number among puts and deletes, from 0; undefined for others. */
  readonly write: number | undefined;
}

export interface StoreFaults {
  readonly fate: (request: CountedRequest) => Fate | undefined;
  readonly onKill?: () => void;
  readonly clock?: Clock;
}

export interface FaultyStore extends ObjectStore {
  /** Carries out requests that were to come late, all or the `count` oldest; those that fail now are dropped. */
  land(count?: number): Promise<void>;
  /** How many are still to come. */
  readonly pending: number;
  /** Requests, and writes among them, so far. */
  readonly requests: number;
  readonly writes: number;
  readonly killed: boolean;
}

/** What a process that was "killed" gets to see: no AgentError, so that nobody handles it. */
export class StoreKilled extends Error {
  constructor() {
    super('the process was killed at this write (injected)');
    this.name = 'StoreKilled';
  }
}

export function faultyStore(store: ObjectStore, faults: StoreFaults): FaultyStore {
  return new Faulty(store, faults);
}

/** A fate for the `n`th request (from 0), of one kind or of all. */
export function nth(n: number, fate: Fate, kind?: StoreRequestKind): StoreFaults['fate'] {
  let count = 0;
  return (request) => ((kind === undefined || request.kind === kind) && count++ === n ? fate : undefined);
}

/** Kills at the `n`th put or delete (from 0), before or after it happened. */
export function killAtWrite(n: number, happened: boolean): StoreFaults['fate'] {
  return ({ write }) => (write === n ? { kind: 'kill', happened } : undefined);
}

/** A store with trouble: each request fails with this probability; half of those writes happen, some of them late. */
export function randomTrouble(random: () => number, probability: number): StoreFaults['fate'] {
  return ({ write }) => {
    if (random() >= probability) return undefined;
    if (write === undefined) return { kind: 'fail', happened: false };
    const kind = random();
    return kind < 0.25 ? { kind: 'late' } : { kind: 'fail', happened: kind < 0.5 };
  };
}

/** What a server that answers with a status would become. */
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

  /** The bytes are copied: what lands late is what was sent, whatever the caller does to its memory meanwhile. */
  override async put(key: string, data: ObjectData, { signal, isNew }: PutOptions = {}): Promise<void> {
    checkKey(key);
    signal?.throwIfAborted();
    const sent = Buffer.concat(dataParts(data));
    // What a server has received does not end with the client's signal.
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
    // Others may have been killed while this one was under way: nobody is there to get the answer.
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
      // One that "happened" breaks off in the middle.
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
