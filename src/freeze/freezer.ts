/**
 * The agent's side of freezing: starts the guard process, tells it when to freeze and thaw, and is its second
 * line: where the guard dies or does not answer, the agent thaws by its own descriptors.
 *
 * Between `freeze` and `thaw` nothing here writes to a file or a log.
 */
import { type FileHandle, stat } from 'node:fs/promises';
import { AgentError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { machineMilliseconds } from '../linux/process.ts';
import { GuardProcess } from './guard-process.ts';
import type { FreezeReport } from './messages.ts';
import { thawIfFrozen } from './leftovers.ts';
import { openMount } from './open-mount.ts';
import { readRecord, recordPath, removeRecord } from './record.ts';

export interface FreezerOptions {
  /** One mount point per filesystem, in the order of freezing: the innermost first. May be empty. */
  readonly mounts: readonly string[];
  /** Milliseconds after which everything thaws, whatever happens. */
  readonly maxFreezeMs: number;
  /** For the record of what is frozen; may not lie on any of the filesystems. */
  readonly runDirectory: string;
  readonly log: Log;
  /** Ends `createFreezer` and `freeze` with CANCELLED; after them, `thaw` and `close` are the caller's. */
  readonly signal?: AbortSignal;
}

export interface Freezer {
  /**
   * Freezes all; once. `frozenAt` is the moment when the first began to freeze, on `performance.now()`'s
   * clock: the deadline is `frozenAt + maxFreezeMs`. Throws ALREADY_FROZEN, FREEZE_FAILED, FREEZE_TIMEOUT,
   * NO_PERMISSION, CANCELLED; nothing of ours is frozen then.
   */
  freeze(): Promise<{ frozenAt: number }>;
  /**
   * Thaws all. Throws FREEZE_TIMEOUT where the guard had thawed before, and FREEZE_FAILED where somebody else
   * had: what was read meanwhile does not belong to one instant then.
   */
  thaw(): Promise<FreezeReport>;
  /** Fires when anything was thawed without being asked; its reason is the AgentError. */
  readonly expiredSignal: AbortSignal;
  /** Thaws what may still be frozen, and ends the guard. To be called always; more than once does no harm. */
  close(): Promise<void>;
}

/** How much later than the deadline the guard may be before the agent thaws by itself, in milliseconds. */
const graceMs = 500;

/** Opens everything and starts the guard; nothing is frozen yet. */
export async function createFreezer(options: FreezerOptions): Promise<Freezer> {
  options.signal?.throwIfAborted();
  const freezer = new GuardedFreezer(options);
  try {
    await freezer.prepare();
    return freezer;
  } catch (thrown) {
    await freezer.close();
    throw thrown;
  }
}

class GuardedFreezer implements Freezer {
  readonly #options: FreezerOptions;
  readonly #expired = new AbortController();
  readonly #opened: FileHandle[] = [];
  #guard: GuardProcess | undefined;
  #watchdog: NodeJS.Timeout | undefined;
  #late = false;
  #stage: 'idle' | 'frozen' | 'over' = 'idle';
  #closing: Promise<void> | undefined;

  constructor(options: FreezerOptions) {
    this.#options = options;
  }

  get expiredSignal(): AbortSignal {
    return this.#expired.signal;
  }

  async prepare(): Promise<void> {
    const { mounts, runDirectory, signal } = this.#options;
    if (mounts.length === 0) return;
    for (const mount of mounts) this.#opened.push(await openMount(mount));
    const runDev = (await stat(runDirectory)).dev;
    for (const [index, handle] of this.#opened.entries())
      if ((await handle.stat()).dev === runDev)
        throw new AgentError(
          'FREEZE_FAILED',
          `${runDirectory} lies on ${mounts[index]!}, which is about to be frozen`,
          { hint: 'choose a run directory on a tmpfs (--run-dir /run/dattod)' },
        );
    this.#guard = new GuardProcess(mounts.length);
    this.#guard.onExpired((why) => this.#expire(why === 'deadline' ? this.#timeout() : this.#stopped()));
    this.#guard.onExit(() => this.#guardDied());
    this.#guard.onFreezing(() => {
      const ms = this.#options.maxFreezeMs + graceMs;
      this.#watchdog = setTimeout(() => this.#guardLate(), ms);
    });
    await this.#guard.prepare(this.#options, signal);
  }

  async freeze(): Promise<{ frozenAt: number }> {
    if (this.#stage !== 'idle') throw new AgentError('INTERNAL', 'a freezer freezes once');
    this.#options.signal?.throwIfAborted();
    if (this.#guard === undefined) {
      this.#stage = 'frozen';
      return { frozenAt: performance.now() };
    }
    try {
      const { beganAt } = await this.#guard.freeze(this.#options.signal);
      const frozenAt = beganAt - (machineMilliseconds() - performance.now());
      this.#stage = 'frozen';
      return { frozenAt };
    } catch (thrown) {
      this.#stage = 'over';
      // Cancelled, or the guard is lost: nothing of ours may stay frozen when this returns.
      await this.close();
      throw this.#late ? this.#timeout() : thrown;
    }
  }

  async thaw(): Promise<FreezeReport> {
    if (this.#stage !== 'frozen' && !this.#isExpired()) throw new AgentError('INTERNAL', 'nothing is frozen');
    const report = await this.#thawed();
    clearTimeout(this.#watchdog);
    this.#stage = 'over';
    this.#expired.signal.throwIfAborted();
    const stolen = report.perMount.filter((mount) => mount.thawedByOthers).map((mount) => mount.path);
    if (stolen.length > 0)
      throw new AgentError(
        'FREEZE_FAILED',
        `${stolen.join(', ')} was thawed by somebody else during the freeze`,
        {
          hint: 'keep other backup programs and fsfreeze away while a backup runs',
        },
      );
    if (report.failures.length > 0)
      throw new AgentError('FREEZE_FAILED', report.failures.join('; '), {
        hint: 'run "fsfreeze --unfreeze MOUNTPOINT"; look at the kernel log for disk errors',
      });
    return report;
  }

  async #thawed(): Promise<FreezeReport> {
    const nothing: FreezeReport = { frozenMs: 0, perMount: [], failures: [] };
    if (this.#guard === undefined || this.#isExpired()) return nothing;
    try {
      return await this.#guard.thaw();
    } catch (thrown) {
      // It died under way, and #guardDied has thawed and told so.
      if (this.#isExpired()) return nothing;
      throw thrown;
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // The end of its input makes the guard thaw; where it hangs in the kernel this waits with it.
    await this.#guard?.end();
    clearTimeout(this.#watchdog);
    this.#stage = 'over';
    for (const handle of this.#opened.splice(0)) await handle.close();
  }

  /** The guard is gone. What its record names is thawed here, on this thread: the pool's may all be waiting. */
  #guardDied(): void {
    clearTimeout(this.#watchdog);
    const { runDirectory, mounts, log } = this.#options;
    const path = recordPath(runDirectory, this.#guard?.pid ?? 0);
    let named = mounts;
    try {
      named = (readRecord(path)?.mounts ?? []).map((mount) => mount.path);
    } catch (err) {
      // It names some of these; what is not frozen says so.
      log.warn({ err }, 'the record of a freeze could not be read');
    }
    const failures: string[] = [];
    const thawed: string[] = [];
    for (const mount of named.toReversed()) {
      const handle = this.#opened[mounts.indexOf(mount)];
      if (handle === undefined) continue;
      const outcome = thawIfFrozen(handle.fd);
      if (outcome === 'thawed') thawed.push(mount);
      else if (outcome !== 'was not frozen') failures.push(`${mount} could not be thawed (${outcome})`);
    }
    if (failures.length === 0) removeRecord(path);
    if (thawed.length > 0) log.warn({ mounts: thawed }, 'the freeze guard died; thawed in its place');
    if (failures.length > 0) log.error({ failures }, 'filesystems stay frozen');
    if (this.#stage === 'frozen') this.#expire(this.#late ? this.#timeout() : this.#died(failures));
  }

  /** The guard does not keep its time: it was stopped, or hangs. Its end makes `#guardDied` thaw. */
  #guardLate(): void {
    this.#late = true;
    this.#guard?.kill();
  }

  #isExpired(): boolean {
    return this.#expired.signal.aborted;
  }

  #expire(error: AgentError): void {
    clearTimeout(this.#watchdog);
    if (this.#stage === 'frozen') this.#stage = 'over';
    // Where the caller closes before thawing, it knows.
    if (this.#closing === undefined) this.#expired.abort(error);
  }

  #timeout(): AgentError {
    return new AgentError(
      'FREEZE_TIMEOUT',
      `The freeze passed the allowed ${this.#options.maxFreezeMs} ms; ${this.#options.mounts.join(', ')} thawed`,
      { hint: 'allow a longer freeze (--max-freeze), or choose a quieter time' },
    );
  }

  #stopped(): AgentError {
    return new AgentError('FREEZE_TIMEOUT', 'The freeze guard was told to stop, and thawed everything', {
      hint: 'start the backup again',
    });
  }

  #died(failures: readonly string[]): AgentError {
    const outcome = failures.length === 0 ? 'the agent thawed in its place' : failures.join('; ');
    return new AgentError('FREEZE_FAILED', `The freeze guard was killed during the freeze; ${outcome}`, {
      hint: 'start the backup again',
    });
  }
}
