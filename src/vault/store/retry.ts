/**
 * A store that repeats requests which may succeed later: the store did not answer or is temporarily unable
 * (VAULT_UNREACHABLE); after EIO of a disk it repeats once. Between two attempts it waits a random time up to a limit
 * that doubles ("full jitter"), so that many agents do not return at one moment. The interface allows repeated puts,
 * gets and deletes.
 */
import { type BackOff, pauseAfter } from '../../base/back-off.ts';
import { type Clock, systemClock } from '../../base/clock.ts';
import { AgentError, errnoCode } from '../../base/errors.ts';
import type { ObjectStore } from './object-store.ts';
import { type StoreRequest, WrappedStore } from './wrapped-store.ts';

export interface RetrySettings {
  /** How long a request is repeated, in milliseconds from its first attempt. Default: 5 minutes; 0: never. */
  readonly totalMs?: number | undefined;
  /** Maximum first wait, in milliseconds. Default: 250. */
  readonly firstWaitMs?: number | undefined;
  /** Maximum of any wait, in milliseconds. Default: 20 s. */
  readonly longestWaitMs?: number | undefined;
}

export interface RetryHooks {
  readonly clock?: Clock | undefined;
  /** Returns a number in [0, 1). */
  readonly random?: (() => number) | undefined;
  /** Called before each wait, because the store does not answer. */
  readonly onWait?: ((wait: RetryWait) => void) | undefined;
  /** Called when a request that had to wait was answered. */
  readonly onAnswer?: ((request: StoreRequest) => void) | undefined;
}

export interface RetryWait {
  readonly request: StoreRequest;
  readonly error: AgentError;
  /** Number of failed attempts so far. */
  readonly attempts: number;
  /** Milliseconds since the first attempt. */
  readonly elapsedMs: number;
  /** Milliseconds until the next attempt. */
  readonly waitMs: number;
}

export function retryingStore(
  store: ObjectStore,
  settings: RetrySettings = {},
  hooks: RetryHooks = {},
): ObjectStore {
  return new RetryingStore(store, settings, hooks);
}

class RetryingStore extends WrappedStore {
  readonly #totalMs: number;
  readonly #backOff: BackOff;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #hooks: RetryHooks;

  constructor(inner: ObjectStore, settings: RetrySettings, hooks: RetryHooks) {
    super(inner);
    this.#totalMs = settings.totalMs ?? 5 * 60_000;
    this.#backOff = {
      firstMs: settings.firstWaitMs ?? 250,
      longestMs: settings.longestWaitMs ?? 20_000,
      jitter: 1,
    };
    this.#clock = hooks.clock ?? systemClock;
    this.#random = hooks.random ?? Math.random;
    this.#hooks = hooks;
  }

  protected override async around<T>(request: StoreRequest, attempt: () => Promise<T>): Promise<T> {
    const patience = this.#patience(request);
    for (;;)
      try {
        const result = await attempt();
        patience.answered();
        return result;
      } catch (thrown) {
        await patience.wait(thrown);
      }
  }

  /** Continues after the last key when a walk is interrupted, if the store lists in the order of keys. */
  protected override async *walk<T>(
    request: StoreRequest,
    begin: (after: string | undefined) => AsyncIterable<T>,
    keyOf: (item: T) => string,
  ): AsyncGenerator<T> {
    let patience = this.#patience(request);
    let last: string | undefined;
    let ordered = true;
    for (;;)
      try {
        for await (const item of begin(last)) {
          const key = keyOf(item);
          // Foreign names start from the beginning again.
          if (request.kind === 'foreign' && last !== undefined && ordered && key <= last) continue;
          if (last !== undefined && key <= last) ordered = false;
          last = key;
          patience.answered();
          patience = this.#patience(request);
          yield item;
        }
        patience.answered();
        return;
      } catch (thrown) {
        if (!ordered) throw thrown;
        await patience.wait(thrown);
      }
  }

  #patience(request: StoreRequest): { wait(thrown: unknown): Promise<void>; answered(): void } {
    const start = this.#clock.monotonic();
    let attempts = 0;
    return {
      answered: () => {
        if (attempts > 0) this.#hooks.onAnswer?.(request);
      },
      /** Waits for the next attempt, or throws if there is none. */
      wait: async (thrown) => {
        request.signal?.throwIfAborted();
        attempts++;
        if (!(thrown instanceof AgentError) || !worthAnother(thrown, attempts)) throw thrown;
        const elapsedMs = this.#clock.monotonic() - start;
        const waitMs = pauseAfter(attempts, this.#backOff, this.#random);
        if (elapsedMs + waitMs >= this.#totalMs) throw gaveUp(thrown, attempts, elapsedMs);
        this.#hooks.onWait?.({ request, error: thrown, attempts, elapsedMs, waitMs });
        await this.#clock.sleep(waitMs, request.signal);
      },
    };
  }
}

/** Returns whether the same request may succeed after failing with this error `attempts` times. */
function worthAnother(error: AgentError, attempts = 1): boolean {
  if (error.code === 'VAULT_UNREACHABLE') return true;
  return attempts === 1 && error.code === 'VAULT_STORE_ERROR' && errnoCode(error.cause) === 'EIO';
}

function gaveUp(error: AgentError, attempts: number, elapsedMs: number): AgentError {
  if (attempts === 1) return error;
  const seconds = Math.round(elapsedMs / 1000);
  return new AgentError(error.code, `${error.message} (${attempts} attempts in ${seconds} s)`, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    cause: error,
  });
}
