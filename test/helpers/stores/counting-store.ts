/** A store that counts its requests, for statistics and tests. */
import type { ObjectStore } from '../../../src/vault/store/object-store.ts';
import {
  type StoreRequest,
  type StoreRequestKind,
  WrappedStore,
} from '../../../src/vault/store/wrapped-store.ts';

export interface StoreCounts {
  /** Number of requests by kind. A list counts once, regardless of its length. */
  readonly requests: Readonly<Record<StoreRequestKind, number>>;
  /** Number of failed requests. */
  readonly failures: number;
  /** Bytes of successful puts. */
  readonly bytesPut: number;
  readonly bytesGot: number;
}

export interface CountingStore extends ObjectStore {
  /** Returns a copy of the current counts. */
  counts(): StoreCounts;
}

export function countingStore(store: ObjectStore): CountingStore {
  return new Counting(store);
}

class Counting extends WrappedStore implements CountingStore {
  #requests = { put: 0, get: 0, head: 0, list: 0, delete: 0, clean: 0, foreign: 0 };
  #failures = 0;
  #bytesPut = 0;
  #bytesGot = 0;

  counts(): StoreCounts {
    return {
      requests: { ...this.#requests },
      failures: this.#failures,
      bytesPut: this.#bytesPut,
      bytesGot: this.#bytesGot,
    };
  }

  protected override async around<T>(what: StoreRequest, request: () => Promise<T>): Promise<T> {
    this.#requests[what.kind]++;
    try {
      const result = await request();
      this.#bytesPut += what.bytes;
      if (Buffer.isBuffer(result)) this.#bytesGot += result.length;
      return result;
    } catch (thrown) {
      this.#failures++;
      throw thrown;
    }
  }

  protected override async *walk<T>(
    what: StoreRequest,
    begin: (after: string | undefined) => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    this.#requests[what.kind]++;
    try {
      yield* begin(undefined);
    } catch (thrown) {
      this.#failures++;
      throw thrown;
    }
  }
}
