/**
 * An object store in memory, for tests. It behaves like a real store, its clock can be controlled, and snapshots of
 * its content allow a test to return to any moment.
 */
import {
  DAY_MS,
  checkKey,
  checkPrefix,
  checkRange,
  dataParts,
  expectSame,
  isKey,
  objectMissing,
  rangeWithin,
  type ObjectStore,
  type StoredObject,
} from '../../../src/vault/store/object-store.ts';

export interface MemoryObject {
  readonly data: Buffer;
  readonly modified: number;
}

export interface MemoryStoreOptions {
  readonly name?: string;
  /** The store's clock, in milliseconds since 1970. Default: the system's. */
  readonly now?: () => number;
  /** Initial content; copied. Objects are never changed in place, so snapshots share their bytes. */
  readonly objects?: ReadonlyMap<string, MemoryObject>;
}

export interface MemoryStore extends ObjectStore {
  /** Current content. Tests may change it directly, also under names that are not keys. */
  readonly objects: Map<string, MemoryObject>;
  /** Returns a copy of the current content, for `MemoryStoreOptions.objects`. */
  picture(): Map<string, MemoryObject>;
}

export function openMemoryStore(options: MemoryStoreOptions = {}): MemoryStore {
  const now = options.now ?? (() => Date.now());
  const objects = new Map(options.objects);
  const name = options.name ?? 'memory';

  return {
    name,
    objects,
    picture: () => new Map(objects),

    put: async (key, data, { signal, isNew } = {}) => {
      checkKey(key);
      for (let end = key.lastIndexOf('/'); end > 0; end = key.lastIndexOf('/', end - 1))
        if (objects.has(key.slice(0, end)))
          throw new RangeError(`${key}: ${key.slice(0, end)} is an object and not a folder`);
      await turn(signal);
      const found = objects.get(key);
      if (isNew === true && found !== undefined) {
        await expectSame({ name, get: () => Promise.resolve(found.data) }, key, data, { signal });
        return;
      }
      objects.set(key, { data: Buffer.concat(dataParts(data)), modified: now() });
    },

    get: async (key, range = {}) => {
      checkKey(key);
      checkRange(range);
      await turn(range.signal);
      const found = objects.get(key);
      if (found === undefined) throw objectMissing(name, key);
      const { start, end } = rangeWithin(found.data.length, range);
      return Buffer.from(found.data.subarray(start, end));
    },

    head: async (key, { signal } = {}) => {
      checkKey(key);
      await turn(signal);
      const found = objects.get(key);
      return found === undefined ? undefined : stored(key, found);
    },

    list: async function* (prefix, { after = '', signal } = {}) {
      checkPrefix(prefix);
      await turn(signal);
      const keys = [...objects.keys()]
        .filter((key) => key.startsWith(prefix) && key > after && isKey(key))
        .sort();
      for (const key of keys) {
        signal?.throwIfAborted();
        const found = objects.get(key);
        if (found !== undefined) yield stored(key, found);
      }
    },

    delete: async (key, { signal } = {}) => {
      checkKey(key);
      await turn(signal);
      objects.delete(key);
    },

    cleanTemporary: async ({ olderThanMs = DAY_MS, signal } = {}) => {
      await turn(signal);
      let count = 0;
      let bytes = 0;
      for (const [key, { data, modified }] of [...objects])
        if (key.startsWith('tmp/') && modified < now() - olderThanMs) {
          objects.delete(key);
          count++;
          bytes += data.length;
        }
      return { count, bytes };
    },

    foreign: async function* ({ signal } = {}) {
      await turn(signal);
      for (const key of [...objects.keys()]) if (!isKey(key) && !key.startsWith('tmp/')) yield key;
    },

    close: () => Promise.resolve(),
  };
}

/** A real store is asynchronous too. */
async function turn(signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted();
  await Promise.resolve();
  signal?.throwIfAborted();
}

function stored(key: string, { data, modified }: MemoryObject): StoredObject {
  return { key, size: data.length, modified };
}
