/**
 * Jobs whose checks are under way. They are in no history yet, since most of what fails then was never a job; but they
 * can be seen, and cancelled: a vault or a server that does not answer may keep a check for minutes.
 */
import type { DevicePair } from '../backup/job.ts';
import type { JobKind, JobStatus } from '../backup/status.ts';
import { parseTarget, targetName } from '../backup/targets.ts';
import { initialStatus } from '../backup/unit.ts';
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

  /** Something of a check that was cancelled goes on until this is settled. */
  goesOn(rest: Promise<unknown>): void {
    this.#over.add(rest);
    void rest.finally(() => this.#over.delete(rest)).catch(() => undefined);
  }

  /** Resolves when nothing goes on any more of what was cancelled. */
  async over(): Promise<void> {
    await Promise.allSettled(this.#over);
  }

  get(uuid: string): Preparation | undefined {
    return this.#all.get(uuid);
  }

  /** The newest first. */
  list(): Preparation[] {
    return [...this.#all.values()].reverse();
  }
}

export class Preparation {
  readonly uuid: string;
  /** Resolves when the job has begun (undefined), or when nobody waits for it any more, with its final status. */
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
   * What `work` resolves with; rejects as soon as it is cancelled, whether `work` heeds the signal or not. What it
   * brings after that goes to `late`. `rest` gets what settles when nothing of it goes on.
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

/** As jobs name it, without secrets; what cannot be read is refused by the checks. */
function nameOf(target: string): string {
  try {
    return targetName(parseTarget(target));
  } catch {
    return '';
  }
}
