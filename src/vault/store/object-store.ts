/**
 * The store of a vault: objects of bytes under keys, in a directory or an S3 bucket. The vault relies only on this
 * interface: no conditional writes, no versions, no ETags, no exact times. `store.contract.ts` is the interface as a
 * test suite that every store runs.
 *
 * All methods reject with AgentErrors: VAULT_OBJECT_MISSING, VAULT_OBJECT_EXISTS, VAULT_UNREACHABLE (the same call
 * may succeed later), VAULT_FULL, VAULT_READ_ONLY, VAULT_DENIED, VAULT_NOT_FOUND (the store itself is gone),
 * VAULT_STORE_ERROR. They reject with the signal's reason if the signal fired.
 */
import { AgentError } from '../../base/errors.ts';

export interface StoredObject {
  readonly key: string;
  /** In bytes. */
  readonly size: number;
  /** By the store's own clock, in milliseconds since 1970. Not more exact than a second, and clocks jump. */
  readonly modified: number;
}

export interface StoreOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface PutOptions extends StoreOptions {
  /**
   * Does not replace an object. If the object exists, the put rejects with VAULT_OBJECT_EXISTS, unless it has the
   * same bytes, because a request may be repeated. Default: an existing object is replaced.
   */
  readonly isNew?: boolean | undefined;
}

/**
 * The range of an object to read: `length` bytes from `offset` (default: all from there), or the last `suffix` bytes.
 */
export interface GetOptions extends StoreOptions {
  readonly offset?: number | undefined;
  readonly length?: number | undefined;
  readonly suffix?: number | undefined;
}

export interface ListOptions extends StoreOptions {
  /** Only keys after this one, in byte order. */
  readonly after?: string | undefined;
}

export interface CleanOptions extends StoreOptions {
  /** Removes only files older than this by the store's own clock, in milliseconds. Default: a day. */
  readonly olderThanMs?: number | undefined;
}

export interface Cleaned {
  readonly count: number;
  /** In bytes, as far as the store reports it. */
  readonly bytes: number;
}

/** One buffer, or parts that are written one after the other. */
export type ObjectData = Uint8Array | readonly Uint8Array[];

/** Reserved space on the store's disk, for when there is no other room. */
export interface Room {
  /** Reserves `bytes`, unless some are already reserved or it would take more than an eighth of the free space. */
  keep(bytes: number): Promise<void>;
  /** Frees the reserved space; returns false if there is none. */
  release(): Promise<boolean>;
}

export interface ObjectStore {
  /** For messages, without secrets: `/path`, `s3://endpoint/bucket/prefix`. */
  readonly name: string;

  /**
   * Stores a whole object, all or nothing. When this resolves, the object is durable, and every later get and list
   * shows it. It replaces an existing object, unless it must be new. A put that fails may have happened, and one that
   * timed out may still happen later. If the signal fires, the object is absent, old or new, but never partial.
   */
  put(key: string, data: ObjectData, options?: PutOptions): Promise<void>;

  /** Returns a consistent range of the object. A range beyond its end is shortened, and may be empty. */
  get(key: string, options?: GetOptions): Promise<Buffer>;

  /** Returns undefined if there is no such object. */
  head(key: string, options?: StoreOptions): Promise<StoredObject | undefined>;

  /**
   * Yields the objects whose keys begin with `prefix`, in any order. An object that existed before the call and was
   * not deleted since is yielded exactly once; other objects may be yielded. Throws rather than end early.
   */
  list(prefix: string, options?: ListOptions): AsyncIterable<StoredObject>;

  /**
   * Does nothing if the object is absent. When it resolves, the object is durably gone. A store with versions or
   * locks may keep the bytes, but no longer shows the object.
   */
  delete(key: string, options?: StoreOptions): Promise<void>;

  /** Removes partial files of interrupted writers, if the store shows them. */
  cleanTemporary(options?: CleanOptions): Promise<Cleaned>;

  /** Yields names in the store's place that are not keys, put there by another program. */
  foreign(options?: StoreOptions): AsyncIterable<string>;

  /** Absent if the store cannot reserve space. */
  readonly room?: Room | undefined;

  /** Closes connections. No method may be called afterwards. */
  close(): Promise<void>;
}

export const DAY_MS = 24 * 3600 * 1000;

const SEGMENT = /^[a-z0-9_-][a-z0-9._-]*$/;

/**
 * Returns true for a key: one to four segments of `[a-z0-9._-]` joined by `/`, at most 200 characters. No segment
 * begins with a dot, because NFS leaves `.nfs…` files. The first segment is not `tmp`, where a directory store
 * writes. No key may be a folder of another: a directory cannot hold `a` and `a/b`.
 */
export function isKey(key: string): boolean {
  const segments = key.split('/');
  return (
    key.length <= 200 &&
    segments.length <= 4 &&
    segments[0] !== 'tmp' &&
    segments.every((segment) => SEGMENT.test(segment))
  );
}

/** Throws a RangeError, because an invalid key is a bug of the caller. */
export function checkKey(key: string): void {
  if (!isKey(key)) throw new RangeError(`"${key}" is not a key of an object store`);
}

/** Accepts the beginning of a key, or an empty string. Throws a RangeError. */
export function checkPrefix(prefix: string): void {
  if (prefix !== '' && !isKey(prefix.endsWith('/') ? `${prefix}0` : prefix))
    throw new RangeError(`"${prefix}" is not the beginning of a key of an object store`);
}

/** Checks a range; throws a RangeError. */
export function checkRange(options: GetOptions): void {
  const { offset, length, suffix } = options;
  for (const [what, value] of Object.entries({ offset, length, suffix }))
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 0))
      throw new RangeError(`${what} ${value} of a range of an object`);
  if (suffix !== undefined && (offset !== undefined || length !== undefined))
    throw new RangeError('a range of an object needs either its end or its beginning, not both');
}

/** Returns the range `[start, end)` of an object of `size` bytes that the options name. */
export function rangeWithin(size: number, options: GetOptions): { start: number; end: number } {
  if (options.suffix !== undefined) return { start: Math.max(0, size - options.suffix), end: size };
  const start = Math.min(size, options.offset ?? 0);
  return { start, end: Math.min(size, start + (options.length ?? size)) };
}

export function dataParts(data: ObjectData): readonly Uint8Array[] {
  return data instanceof Uint8Array ? [data] : data;
}

export function dataLength(data: ObjectData): number {
  return dataParts(data).reduce((sum, part) => sum + part.length, 0);
}

/** For a put of a new object that already exists: accepts an equal object. Throws VAULT_OBJECT_EXISTS. */
export async function expectSame(
  store: Pick<ObjectStore, 'name' | 'get'>,
  key: string,
  data: ObjectData,
  { signal }: StoreOptions,
): Promise<void> {
  const found = await store.get(key, { signal });
  if (found.equals(Buffer.concat(dataParts(data)))) return;
  throw new AgentError(
    'VAULT_OBJECT_EXISTS',
    `${store.name} already has an object ${key} with other content (${found.length} bytes); it was not replaced`,
    {
      hint:
        'start the command again; this happens if this machine was cloned or restored from a ' +
        'snapshot while it worked',
    },
  );
}

export function objectMissing(store: string, key: string, cause?: unknown): AgentError {
  return new AgentError('VAULT_OBJECT_MISSING', `${store} has no object ${key}`, { cause });
}
