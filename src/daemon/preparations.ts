/**
 * Jobs whose checks are still running. They are not in the history yet, since most requests that fail here never
 * became a job. But they can be listed and cancelled: a vault or a server that does not answer may block a check for
 * minutes.
 */
import type { DevicePair } from '../backup/job.ts';
import type { JobKind, JobStatus } from '../api/job-status.ts';
import { parseTarget, targetName } from '../backup/copy/targets.ts';
import { initialStatus } from '../backup/initial-status.ts';
import { AgentError, toAgentError } from '../base/errors.ts';

export class Preparations {
  readonly #all = new Map<string, Preparation>();
  readonly #over = new Set<Promise<unknown>>();

  begin(uuid: string, kind: JobKind, pairs: readonly DevicePair[]): Preparation {
    const preparation = new Preparation(uuid, kind, pairs);
    this.#all.set(uuid, preparation);
    return preparation;
  }

  end({ uuid }: Preparation): void {
    this.#all.delete(uuid);
  }

  /** Registers work of a cancelled check that continues until `rest` is settled. */
  goesOn(rest: Promise<unknown>): void {
    this.#over.add(rest);
    void rest.finally(() => this.#over.delete(rest)).catch(() => undefined);
  }

  /** Resolves when no work of a cancelled check continues any more. */
  async over(): Promise<void> {
    await Promise.allSettled(this.#over);
  }

  get(uuid: string): Preparation | undefined {
    return this.#all.get(uuid);
  }

  /** Returns all preparations, the newest first. */
  list(): Preparation[] {
    return [...this.#all.values()].reverse();
  }
}

export class Preparation {
  readonly uuid: string;
  /** Resolves with undefined when the job has begun, or with its final status if it ends before that. */
  readonly ended: Promise<JobStatus | undefined>;
  readonly #cancelling = new AbortController();
  readonly #status: JobStatus;
  readonly #end: (status: JobStatus | undefined) => void;

  constructor(uuid: string, kind: JobKind, pairs: readonly DevicePair[]) {
    this.uuid = uuid;
    const { promise, resolve } = Promise.withResolvers<JobStatus | undefined>();
    this.ended = promise;
    this.#end = resolve;
    this.#status = {
      ...{ uuid, kind, state: 'NOT_STARTED', phase: 'preparing', paused: false },
      ...{ created_at: new Date().toISOString(), finished_at: null, tracker: 'none' },
      ...{ rate: 0, seconds_left: null, warnings: [], error: null },
      devices: pairs.map((pair) => initialStatus(pair, nameOf(pair.target))),
    };
  }

  get signal(): AbortSignal {
    return this.#cancelling.signal;
  }

  status(): JobStatus {
    return structuredClone(this.#status);
  }

  cancel(reason: AgentError): void {
    this.#cancelling.abort(reason);
  }

  /**
   * Runs `work` and resolves with its result. Rejects as soon as the preparation is cancelled, whether `work` heeds the
   * signal or not. If `work` still returns a result after that, `late` gets it. `rest` gets a promise that settles when
   * all of `work` has ended.
   */
  async run<T>(
    work: (signal: AbortSignal) => Promise<T>,
    {
      late,
      rest,
    }: { readonly late: (result: T) => Promise<void>; readonly rest: (over: Promise<void>) => void },
  ): Promise<T> {
    const { signal } = this;
    const { promise: cancelled, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(toAgentError(signal.reason));
    signal.addEventListener('abort', onAbort);
    const working = work(signal);
    try {
      const result = await Promise.race([working, cancelled]);
      if (!signal.aborted) return result;
      throw toAgentError(signal.reason);
    } catch (error) {
      rest(working.then(late).catch(() => undefined));
      throw error;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  began(): void {
    this.#end(undefined);
  }

  failed(error: AgentError): JobStatus {
    const status: JobStatus = {
      ...this.status(),
      state: this.signal.aborted ? 'CANCELLED' : 'FAILED',
      phase: 'done',
      finished_at: new Date().toISOString(),
      error: error.toDocument(),
    };
    this.#end(status);
    return status;
  }
}

/** The target's name as jobs show it, without secrets. Empty for an invalid target; the checks refuse it. */
function nameOf(target: string): string {
  try {
    return targetName(parseTarget(target));
  } catch {
    return '';
  }
}
