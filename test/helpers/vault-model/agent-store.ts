/**
 * The store as one process of the model sees it. Every request waits until the model chooses its fate: done, failed, done
 * twice (the second time later), or late. The process may also be killed in it.
 */
import { AgentError } from '../../../src/base/errors.ts';
import { StoreKilled } from '../stores/faulty-store.ts';
import type { MemoryStore } from '../stores/memory-store.ts';
import { type ObjectData, type PutOptions, dataParts } from '../../../src/vault/store/object-store.ts';
import { type StoreRequest, WrappedStore } from '../../../src/vault/store/wrapped-store.ts';

export type RequestFate = 'done' | 'full' | 'failed' | 'failed, though it happened' | 'late' | 'done twice';

export interface WaitingRequest {
  readonly what: StoreRequest;
  settle(fate: RequestFate): Promise<void>;
  /** The process ends in it; what it has sent has happened already, or happens later, or does not. */
  kill(fate: 'failed' | 'late' | 'done'): Promise<void>;
}

/** So many objects of a list are seen at one moment. */
const listPage = 6;

export class AgentStore extends WrappedStore {
  readonly waiting: WaitingRequest[] = [];
  /** The key of the writer that the process has announced. */
  #writer: string | undefined;
  #wasStale = false;
  #hasEnded = false;
  readonly #objects: ReadonlyMap<string, unknown>;
  /** Requests happen at once. */
  isFree = true;
  #killed = false;
  readonly #onLate: (request: () => Promise<unknown>) => void;

  /** `onLate` keeps the requests that will happen later. */
  constructor(inner: MemoryStore, onLate: (request: () => Promise<unknown>) => void) {
    super(inner);
    this.#objects = inner.objects;
    this.#onLate = onLate;
  }

  /** The process ends: nothing of it happens any more, but what it has sent already. */
  async kill(fateOf: () => 'failed' | 'late' | 'done'): Promise<void> {
    this.#killed = true;
    for (const request of this.waiting.splice(0)) await request.kill(fateOf());
  }

  release(): void {
    this.isFree = true;
    for (const request of this.waiting.splice(0)) void request.settle('done');
  }

  override async put(key: string, data: ObjectData, { signal, isNew }: PutOptions = {}): Promise<void> {
    const sent = Buffer.concat(dataParts(data));
    if (/^writers\/[0-9a-f]{32}$/.test(key)) this.#writer ??= key;
    if (key === `${this.#writer}.end`) {
      this.#wasStale = this.isStale;
      this.#hasEnded = true;
    }
    await this.around({ kind: 'put', key, bytes: sent.length, signal }, () =>
      this.inner.put(key, sent, { isNew }),
    );
  }

  /** Whether another process has declared its writer stale, before the process ended it. */
  get isStale(): boolean {
    const writer = this.#writer;
    if (writer === undefined || this.#hasEnded) return this.#wasStale;
    return !this.#objects.has(writer) || this.#objects.has(`${writer}.end`);
  }

  protected override around<T>(what: StoreRequest, request: () => Promise<T>): Promise<T> {
    if (this.#killed) return Promise.reject(new StoreKilled());
    if (this.isFree) return request();
    return new Promise<T>((resolve, reject) => {
      this.waiting.push({
        what,
        kill: async (fate) => {
          const isWrite = what.kind === 'put' || what.kind === 'delete';
          if (isWrite && fate === 'late') this.#onLate(request);
          // The store may refuse it, for an ID that exists already. The process does not see the answer.
          if (isWrite && fate === 'done') await request().catch(() => undefined);
          reject(new StoreKilled());
        },
        settle: (fate) => this.#settle(what, request, fate).then(resolve, reject),
      });
    });
  }

  async #settle<T>(what: StoreRequest, request: () => Promise<T>, fate: RequestFate): Promise<T> {
    if (fate === 'done') return request();
    if (fate === 'full') throw new AgentError('VAULT_FULL', `${what.kind} ${what.key}: no room (injected)`);
    if (fate === 'late') this.#onLate(request);
    if (fate === 'failed, though it happened') await request();
    if (fate === 'done twice') {
      const result = await request();
      this.#onLate(request);
      return result;
    }
    throw new AgentError('VAULT_UNREACHABLE', `${what.kind} ${what.key}: ${fate} (injected)`);
  }

  protected override async *walk<T>(
    what: StoreRequest,
    begin: (after: string | undefined) => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    await this.around(what, () => Promise.resolve());
    let seen = 0;
    for await (const item of begin(undefined)) {
      if (++seen % listPage === 0) await this.around(what, () => Promise.resolve());
      yield item;
    }
  }
}
