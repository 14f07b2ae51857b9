/** The base class of decorators of stores: every request passes through one method. */
import type {
  Cleaned,
  CleanOptions,
  GetOptions,
  ListOptions,
  ObjectData,
  ObjectStore,
  PutOptions,
  Room,
  StoreOptions,
  StoredObject,
} from './object-store.ts';
import { dataLength } from './object-store.ts';

export type StoreRequestKind = 'put' | 'get' | 'head' | 'list' | 'delete' | 'clean' | 'foreign';

export interface StoreRequest {
  readonly kind: StoreRequestKind;
  /** The key, or the prefix of a listing. */
  readonly key: string;
  /** Bytes that a put sends; 0 for other requests. */
  readonly bytes: number;
  readonly signal: AbortSignal | undefined;
}

export abstract class WrappedStore implements ObjectStore {
  protected readonly inner: ObjectStore;

  constructor(inner: ObjectStore) {
    this.inner = inner;
  }

  get name(): string {
    return this.inner.name;
  }

  get room(): Room | undefined {
    return this.inner.room;
  }

  /** Handles every request except listings. `request` may be called again, or never. */
  protected abstract around<T>(what: StoreRequest, request: () => Promise<T>): Promise<T>;

  /** Handles listings and foreign names. `begin` starts a listing after a key. */
  protected abstract walk<T>(
    what: StoreRequest,
    begin: (after: string | undefined) => AsyncIterable<T>,
    keyOf: (item: T) => string,
  ): AsyncIterable<T>;

  put(key: string, data: ObjectData, options: PutOptions = {}): Promise<void> {
    const what = { kind: 'put', key, bytes: dataLength(data), signal: options.signal } as const;
    return this.around(what, () => this.inner.put(key, data, options));
  }

  get(key: string, options: GetOptions = {}): Promise<Buffer> {
    return this.around(without('get', key, options), () => this.inner.get(key, options));
  }

  head(key: string, options: StoreOptions = {}): Promise<StoredObject | undefined> {
    return this.around(without('head', key, options), () => this.inner.head(key, options));
  }

  delete(key: string, options: StoreOptions = {}): Promise<void> {
    return this.around(without('delete', key, options), () => this.inner.delete(key, options));
  }

  cleanTemporary(options: CleanOptions = {}): Promise<Cleaned> {
    return this.around(without('clean', '', options), () => this.inner.cleanTemporary(options));
  }

  list(prefix: string, options: ListOptions = {}): AsyncIterable<StoredObject> {
    return this.walk(
      without('list', prefix, options),
      (after = options.after) => this.inner.list(prefix, { ...options, after }),
      ({ key }) => key,
    );
  }

  foreign(options: StoreOptions = {}): AsyncIterable<string> {
    return this.walk(
      without('foreign', '', options),
      () => this.inner.foreign(options),
      (name) => name,
    );
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}

function without(kind: StoreRequestKind, key: string, { signal }: StoreOptions): StoreRequest {
  return { kind, key, bytes: 0, signal };
}
