/**
 * The agent's side of freezing. Starts the guard process and commands it to freeze and thaw. If the guard dies or does
 * not answer, the agent thaws with its own descriptors.
 *
 * Between `freeze` and `thaw` nothing here writes to a file or a log.
 */
import { type FileHandle, stat } from 'node:fs/promises';
import { AgentError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { machineMilliseconds } from '../linux/process.ts';
import { GuardProcess } from './guard-process.ts';
import type { FreezeReport } from './guard-messages.ts';
import { thawIfFrozen } from './leftovers.ts';
import { openMount } from './open-mount.ts';
import { readRecord, recordPath, removeRecord } from './freeze-record.ts';

export interface FreezerOptions {
  /** One mount point per filesystem, in the order of freezing: the innermost first. May be empty. */
  readonly mounts: readonly string[];
  /** Milliseconds after which everything is thawed in any case. */
  readonly maxFreezeMs: number;
  /** Directory of the record of frozen filesystems. Must not be on any of these filesystems. */
  readonly runDirectory: string;
  readonly log: Log;
  /** Ends `createFreezer` and `freeze` with CANCELLED. Does not affect `thaw` and `close`: the caller calls these. */
  readonly signal?: AbortSignal;
}

export interface Freezer {
  /**
   * Freezes all filesystems; may be called once. `frozenAt` is when the first filesystem began to freeze, on
   * `performance.now()`'s clock: the deadline is `frozenAt + maxFreezeMs`. Throws ALREADY_FROZEN, FREEZE_FAILED,
   * FREEZE_TIMEOUT, NO_PERMISSION, CANCELLED; then this freezer holds nothing frozen.
   */
  freeze(): Promise<{ frozenAt: number }>;
  /**
   * Thaws all filesystems. Throws FREEZE_TIMEOUT if the guard has thawed them before, and FREEZE_FAILED if another
   * process has. The data that was read during the freeze is then not from one instant.
   */
  thaw(): Promise<FreezeReport>;
  /** Fires if the guard or the agent thawed before `thaw` was called. Its reason is the AgentError. */
  readonly expiredSignal: AbortSignal;
  /** Thaws filesystems that may still be frozen, and ends the guard. Always call it; calling it again is harmless. */
  close(): Promise<void>;
}

/** Milliseconds after the deadline before the agent kills the guard and thaws by itself. */
const graceMs = 500;

/** Opens the mount points and starts the guard. Nothing is frozen yet. */
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
      // Cancelled, or the guard ended. Nothing that we froze may stay frozen when this returns.
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
        `${stolen.join(', ')} was thawed by another program during the freeze`,
        {
          hint: 'do not run other backup programs or fsfreeze during a backup',
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
      // The guard died during the call. #guardDied has thawed and reported it.
      if (this.#isExpired()) return nothing;
      throw thrown;
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // The guard thaws when its input ends. If it hangs in the kernel, this waits for it.
    await this.#guard?.end();
    clearTimeout(this.#watchdog);
    this.#stage = 'over';
    for (const handle of this.#opened.splice(0)) await handle.close();
  }

  /** The guard has ended: thaws the mounts of its record, on this thread, as all threads of the pool may be blocked. */
  #guardDied(): void {
    clearTimeout(this.#watchdog);
    const { runDirectory, mounts, log } = this.#options;
    const path = recordPath(runDirectory, this.#guard?.pid ?? 0);
    let named = mounts;
    try {
      named = (readRecord(path)?.mounts ?? []).map((mount) => mount.path);
    } catch (err) {
      // The record names some of these mounts. To thaw a mount that is not frozen gives EINVAL.
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

  /** Kills a guard that missed its deadline: it was stopped, or hangs. Then `#guardDied` thaws. */
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
    // A caller that closes before it thaws knows this already.
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
