/**
 * The logic of the guard. Freezes filesystems in order, and ensures that each is thawed again in any case (invariant 4
 * of the design: a frozen filesystem always thaws). Pure: the caller passes the kernel's calls and the clock, so tests
 * can make a freeze hang.
 *
 * Every call to the kernel runs on its own thread, and no call waits for another. A filesystem on a loop device can
 * thaw only after the filesystem that holds the loop device's file. A filesystem that freezes slowly is thawed as soon
 * as the kernel returns from the freeze, even if the deadline has passed before.
 */
import { AgentError, errnoCode } from '../base/errors.ts';
import type { FreezeReport, MountReport } from './guard-messages.ts';

export interface GuardKernel {
  /** `sync`, `freeze` and `thaw` take the index of a mount. */
  sync(mount: number): Promise<void>;
  freeze(mount: number): Promise<void>;
  thaw(mount: number): Promise<void>;
  /** Milliseconds on a clock that never jumps. */
  now(): number;
  /** Calls back after `ms` milliseconds. Returns the function that cancels the call. */
  after(ms: number, callback: () => void): () => void;
  /** Called before each freeze with all mounts that are then frozen, the new one last. */
  record(mounts: readonly number[], deadline: number): void;
  /** Called when nothing is frozen any more. */
  forget(): void;
  /** Called once, just before the first freeze. */
  begin(): void;
}

interface MountState {
  readonly path: string;
  readonly index: number;
  stage: 'free' | 'freezing' | 'frozen' | 'thawing' | 'thawed';
  beganAt: number;
  thawedAt: number;
  thawedByOthers: boolean;
  failure: string | undefined;
  /** Settles (never rejects) when the current freeze call has returned. */
  settled: Promise<void>;
}

/** Delay in ms and number of attempts of a thaw that fails (a disk error). */
const thawRetryMs = 100;
const thawAttempts = 50;

export class FreezeGuard {
  readonly #kernel: GuardKernel;
  readonly #mounts: readonly MountState[];
  readonly #maxFreezeMs: number;
  readonly #onExpired: (why: 'deadline' | 'signal', report: FreezeReport) => void;
  #phase: 'idle' | 'syncing' | 'freezing' | 'frozen' | 'thawing' | 'over' = 'idle';
  #cancelTimer: () => void = () => undefined;
  #thawing: Promise<FreezeReport> | undefined;

  constructor(
    kernel: GuardKernel,
    mounts: readonly string[],
    maxFreezeMs: number,
    onExpired: (why: 'deadline' | 'signal', report: FreezeReport) => void,
  ) {
    this.#kernel = kernel;
    this.#maxFreezeMs = maxFreezeMs;
    this.#onExpired = onExpired;
    this.#mounts = mounts.map((path, index) => ({
      path,
      index,
      stage: 'free',
      beganAt: 0,
      thawedAt: 0,
      thawedByOthers: false,
      failure: undefined,
      settled: Promise.resolve(),
    }));
  }

  /**
   * Writes dirty data, then freezes all filesystems. Returns the time when the first freeze began. Throws
   * ALREADY_FROZEN, FREEZE_FAILED, FREEZE_TIMEOUT; then the guard holds nothing frozen.
   */
  async freeze(): Promise<number> {
    if (this.#phase !== 'idle') throw new AgentError('INTERNAL', 'the guard froze once already');
    this.#phase = 'syncing';
    // Most dirty data is written here, while applications can still write.
    for (const mount of this.#mounts) {
      await this.#kernel.sync(mount.index);
      if (this.#interrupted()) throw this.#tooLate();
    }
    this.#phase = 'freezing';
    this.#kernel.begin();
    const beganAt = this.#kernel.now();
    this.#cancelTimer = this.#kernel.after(this.#maxFreezeMs, () => void this.expire('deadline'));
    for (const mount of this.#mounts) {
      await this.#freezeOne(mount, beganAt + this.#maxFreezeMs);
      if (this.#interrupted()) {
        await this.#thawing;
        throw this.#tooLate(mount);
      }
    }
    this.#phase = 'frozen';
    return beganAt;
  }

  /** Thaws everything that is frozen, or waits for the thaw under way. Never rejects. */
  thaw(): Promise<FreezeReport> {
    this.#thawing ??= this.#thawAll();
    return this.#thawing;
  }

  /** Thaws without a command. Calls `onExpired` if all were frozen. Resolves when the thaw has ended. */
  async expire(why: 'deadline' | 'signal'): Promise<void> {
    const tell = this.#phase === 'frozen';
    const report = await this.thaw();
    if (tell) this.#onExpired(why, report);
  }

  async #freezeOne(mount: MountState, deadline: number): Promise<void> {
    this.#kernel.record(
      [...this.#mounts.filter(isHeld), mount].map((each) => each.index),
      deadline,
    );
    mount.stage = 'freezing';
    mount.beganAt = this.#kernel.now();
    const outcome = this.#kernel.freeze(mount.index).then(
      () => {
        mount.stage = 'frozen';
        return undefined;
      },
      (thrown: unknown) => {
        mount.stage = 'free';
        return freezeFailure(mount.path, thrown);
      },
    );
    mount.settled = outcome.then(() => undefined);
    const failure = await outcome;
    if (failure === undefined) return;
    await this.thaw();
    throw failure;
  }

  async #thawAll(): Promise<FreezeReport> {
    this.#cancelTimer();
    this.#phase = 'thawing';
    // The last frozen first. No call waits for another: see the beginning of this file.
    await Promise.all(this.#mounts.toReversed().map((mount) => this.#thawOne(mount)));
    const failures = this.#mounts.flatMap((mount) => mount.failure ?? []);
    if (failures.length === 0) this.#kernel.forget();
    this.#phase = 'over';
    const perMount = this.#mounts.filter((mount) => mount.stage === 'thawed').map(reportOf);
    const began = Math.min(...this.#mounts.map((mount) => mount.beganAt).filter((at) => at > 0));
    const ended = Math.max(...this.#mounts.map((mount) => mount.thawedAt));
    return { frozenMs: perMount.length === 0 ? 0 : ended - began, perMount, failures };
  }

  async #thawOne(mount: MountState): Promise<void> {
    await mount.settled;
    if (mount.stage !== 'frozen') return;
    mount.stage = 'thawing';
    for (let attempt = 1; ; attempt++)
      try {
        await this.#kernel.thaw(mount.index);
        break;
      } catch (thrown) {
        const code = errnoCode(thrown);
        if (code === 'EINVAL') {
          mount.thawedByOthers = true;
          break;
        }
        if (attempt === thawAttempts) {
          mount.failure = `${mount.path} could not be thawed (${code ?? String(thrown)})`;
          mount.stage = 'frozen';
          return;
        }
        await new Promise<void>((resolve) => this.#kernel.after(thawRetryMs, resolve));
      }
    mount.thawedAt = this.#kernel.now();
    mount.stage = 'thawed';
  }

  /** True if a thaw began while `freeze` was waiting. */
  #interrupted(): boolean {
    return this.#thawing !== undefined;
  }

  #tooLate(mount?: MountState): AgentError {
    const what = mount === undefined ? 'ended before it began' : `did not get past ${mount.path}`;
    return new AgentError(
      'FREEZE_TIMEOUT',
      `Freezing ${what}: the allowed time of ${this.#maxFreezeMs} ms was over, or the guard was told to stop`,
      { hint: 'allow a longer freeze (--max-freeze), or choose a quieter time' },
    );
  }
}

function isHeld(mount: MountState): boolean {
  return mount.stage === 'frozen' || mount.stage === 'freezing';
}

function reportOf(mount: MountState): MountReport {
  return {
    path: mount.path,
    frozenMs: mount.thawedAt - mount.beganAt,
    thawedByOthers: mount.thawedByOthers,
  };
}

function freezeFailure(path: string, cause: unknown): AgentError {
  const code = errnoCode(cause) ?? String(cause);
  switch (code) {
    case 'EBUSY':
      return new AgentError('ALREADY_FROZEN', `${path} is already frozen by another program`, {
        hint: `find out which program froze it; if no program needs it frozen, run "fsfreeze --unfreeze ${path}"`,
        cause,
      });
    case 'EOPNOTSUPP':
      return new AgentError('FREEZE_FAILED', `${path}: its type of filesystem cannot be frozen`, {
        hint: 'unmount it or mount it read-only for the backup',
        cause,
      });
    case 'EPERM':
    case 'EACCES':
      return new AgentError('NO_PERMISSION', `${path} may not be frozen (${code})`, {
        hint: 'run as root',
        cause,
      });
    default:
      return new AgentError('FREEZE_FAILED', `${path} could not be frozen (${code})`, {
        hint: 'look at the kernel log for errors of this filesystem',
        cause,
      });
  }
}
