/**
 * A store with limits in bytes per second for uploads and downloads. The limit holds over several objects: a large
 * object is sent at line speed when its time has come.
 */
import { type Clock, systemClock } from '../../base/clock.ts';
import { RateLimit } from '../../block/rate-limit.ts';
import type { ObjectStore } from './object-store.ts';
import { type StoreRequest, WrappedStore } from './wrapped-store.ts';

export interface RateSettings {
  /** Bytes per second of puts; undefined: no limit. */
  readonly upload?: number | undefined;
  /** Bytes per second of gets. */
  readonly download?: number | undefined;
}

export function rateLimitedStore(
  store: ObjectStore,
  settings: RateSettings,
  clock: Clock = systemClock,
): ObjectStore {
  const limit = (rate: number | undefined) => (rate === undefined ? undefined : new RateLimit(clock, rate));
  return new RateLimitedStore(store, limit(settings.upload), limit(settings.download));
}

class RateLimitedStore extends WrappedStore {
  readonly #upload: RateLimit | undefined;
  readonly #download: RateLimit | undefined;

  constructor(inner: ObjectStore, upload: RateLimit | undefined, download: RateLimit | undefined) {
    super(inner);
    this.#upload = upload;
    this.#download = download;
  }

  protected override async around<T>(what: StoreRequest, request: () => Promise<T>): Promise<T> {
    if (what.kind === 'put') await this.#upload?.take(what.bytes, what.signal);
    const result = await request();
    if (Buffer.isBuffer(result)) await this.#download?.take(result.length, what.signal);
    return result;
  }

  protected override walk<T>(
    _: StoreRequest,
    begin: (after: string | undefined) => AsyncIterable<T>,
  ): AsyncIterable<T> {
    return begin(undefined);
  }
}
