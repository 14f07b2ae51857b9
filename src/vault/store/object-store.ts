/**
 * What a vault is kept in: objects of bytes under keys, in a directory or an S3 bucket. Nothing rests on more than
 * this interface says: no conditional writes, no versions, no ETags, no exact times. `store.contract.ts` is the
 * interface as a test suite that every store runs.
 *
 * All methods reject with AgentErrors: VAULT_OBJECT_MISSING, VAULT_OBJECT_EXISTS, VAULT_UNREACHABLE (the same call may succeed later),
 * VAULT_FULL, VAULT_READ_ONLY, VAULT_DENIED, VAULT_NOT_FOUND (the store itself is gone), VAULT_STORE_ERROR; and with
 * the signal's reason where the signal fired.
 */
import { AgentError } from '../../base/errors.ts';

export interface StoredObject {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
  /** By the store's own clock, milliseconds since 1970; no more exact than a second, and clocks jump. */
  readonly modified: number;
}

export interface StoreOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface PutOptions extends StoreOptions {
  /**
   * Nothing is replaced: where there is such an object, the put rejects with VAULT_OBJECT_EXISTS, unless that object
   * has the very same bytes, since a request may be repeated. Default: what was there is replaced.
   */
  readonly isNew?: boolean | undefined;
}

/** Which bytes of an object: `length` of them from `offset` (default: all from there), or the last `suffix`. */
export interface GetOptions extends StoreOptions {
  readonly offset?: number | undefined;
  readonly length?: number | undefined;
  readonly suffix?: number | undefined;
}

export interface ListOptions extends StoreOptions {
  /** Only keys that come after this one, by their bytes. */
  readonly after?: string | undefined;
}

export interface CleanOptions extends StoreOptions {
  /** Only what is older than this by the store's own clock, milliseconds. Default: a day. */
  readonly olderThanMs?: number | undefined;
}

export interface Cleaned {
  readonly count: number;
  /** Bytes, as far as the store says. */
  readonly bytes: number;
}

/** One buffer, or parts that are written one after the other. */
export type ObjectData = Uint8Array | readonly Uint8Array[];

/** A piece of the store's disk that is kept for when there is no other room. */
export interface Room {
  /** Takes `bytes`, unless some are kept already or that would take an eighth of what is free. */
  keep(bytes: number): Promise<void>;
  /** Gives back what was kept; false where nothing was. */
  release(): Promise<boolean>;
}

export interface ObjectStore {
  /** For messages, no secrets in it: `/path`, `s3://endpoint/bucket/prefix`. */
  readonly name: string;

  /**
   * Stores a whole object, all or nothing: when this resolves, the object is durable and every later get and list
   * of anybody shows it. Replaces what was there, unless it has to be new. A put that fails may have happened, and one that timed out may
   * still happen later. A signal that fires leaves the object absent, old or new, never partial.
   */
  put(key: string, data: ObjectData, options?: PutOptions): Promise<void>;

  /** Bytes of one moment of the object; ranges beyond its end give what is there, perhaps nothing. */
  get(key: string, options?: GetOptions): Promise<Buffer>;

  /** Undefined where there is no such object. */
  head(key: string, options?: StoreOptions): Promise<StoredObject | undefined>;

  /**
   * The objects whose keys begin with `prefix`, in any order: each that existed before the call and was not deleted
   * meanwhile exactly once; others perhaps. Throws rather than end early.
   */
  list(prefix: string, options?: ListOptions): AsyncIterable<StoredObject>;

  /**
   * An absent object is fine. When it resolves the object is gone durably. A store with versions or locks may keep
   * the bytes, but shows the object no more.
   */
  delete(key: string, options?: StoreOptions): Promise<void>;

  /** Removes what writers that died left half-written, where the store shows such things. */
  cleanTemporary(options?: CleanOptions): Promise<Cleaned>;

  /** Names within the store's place that are no keys: put there by somebody else. */
  foreign(options?: StoreOptions): AsyncIterable<string>;

  /** Absent where the store cannot keep any. */
  readonly room?: Room | undefined;

  /** Lets go of connections. Nothing may be called afterwards. */
  close(): Promise<void>;
}

export const DAY_MS = 24 * 3600 * 1000;

const SEGMENT = /^[a-z0-9_-][a-z0-9._-]*$/;

/**
 * True for a key: one to four segments of `[a-z0-9._-]` joined by `/`, 200 characters at most. No segment begins with
 * a dot (NFS leaves `.nfs…` files about), and none of a key is `tmp` alone at its beginning (a directory store
 * writes there). No key may be a folder of another: a directory cannot hold `a` and `a/b`.
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

/** Throws a RangeError, since a wrong key is a defect of the caller. */
export function checkKey(key: string): void {
  if (!isKey(key)) throw new RangeError(`"${key}" is no key of an object store`);
}

/** The beginning of a key, or nothing. Throws a RangeError. */
export function checkPrefix(prefix: string): void {
  if (prefix !== '' && !isKey(prefix.endsWith('/') ? `${prefix}0` : prefix))
    throw new RangeError(`"${prefix}" is no beginning of a key of an object store`);
}

/** Checks a range; throws a RangeError. */
export function checkRange(options: GetOptions): void {
  const { offset, length, suffix } = options;
  for (const [what, value] of Object.entries({ offset, length, suffix }))
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 0))
      throw new RangeError(`${what} ${value} of a range of an object`);
  if (suffix !== undefined && (offset !== undefined || length !== undefined))
    throw new RangeError('a range of an object by its end and by its beginning');
}

/** The part of an object of `size` bytes that the options name: `[start, end)`. */
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

/** For a put that was to make a new object and found one: fine where that is the same. Throws VAULT_OBJECT_EXISTS. */
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
    `${store.name} has an object ${key} already, with other content (${found.length} bytes); it was not replaced`,
    { hint: 'was this machine put back to a snapshot, or cloned, while it worked? Start the command again' },
  );
}

export function objectMissing(store: string, key: string, cause?: unknown): AgentError {
  return new AgentError('VAULT_OBJECT_MISSING', `${store} has no object ${key}`, { cause });
}
