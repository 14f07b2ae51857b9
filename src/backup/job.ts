/**
 * A backup job as the daemon sees it: `prepareJob` checks everything and changes nothing, `start` runs the job.
 */
import type { Log, LogSink } from '../base/log.ts';
import type { Device } from '../devices/device.ts';
import type { StartTracking } from '../tracking/tracker-registry.ts';
import type { VaultContext } from '../vault/opening.ts';
import type { Impact } from './impact.ts';
import type { JobKind, JobStatus } from '../api/job-status.ts';

export interface DevicePair {
  readonly device: Device;
  /** `nbd://…`, `nbds://…`, `nbd+unix://…`, `vault:…`, `vault+s3://…`, or an absolute path of a file or block device. */
  readonly target: string;
}

export interface JobOptions {
  /** Longest allowed freeze in milliseconds. */
  readonly maxFreezeMs: number;
  /** Bytes per second over the whole job; undefined for no limit. */
  readonly rate: number | undefined;
  /** How much the job may slow down other work on the machine. */
  readonly impact: Impact;
  readonly onReadError: 'fail' | 'zero';
  /** Connections per target, if the target allows several. */
  readonly connections: number;
  /** How long the job waits for a lost target, in milliseconds. */
  readonly reconnectMs: number;
  /** How much is read back from the target and compared after the last flush. */
  readonly verify: 'none' | 'sample' | 'full';
  /**
   * Whether a full backup takes fingerprints of the data that it sends. Without them it takes less processor time, and
   * the next backup to the same target is a full one again. A device that nothing tracks is fingerprinted in any case.
   */
  readonly fingerprints: boolean;
  /** Which tracker is used; `auto` takes the best one available. */
  readonly tracker: 'auto' | 'ebpf' | 'blktrace' | 'none';
  /**
   * `auto`: a mounted logical volume that nothing tracks is backed up from a temporary LVM snapshot, if there is room
   * for one. Otherwise, and with `never`, it is compared while it is frozen.
   */
  readonly snapshot: 'auto' | 'never';
  /** Bytes that a snapshot of a thick volume gets; undefined for the default share. */
  readonly snapshotSize: number | undefined;
  /** Whether an incremental whose chain may be incomplete becomes a differential, or fails with CHAIN_IN_DOUBT. */
  readonly fallback: boolean;
  /** Whether the target is told to free the space of blocks that are no longer in use. */
  readonly trim: boolean;
  /** Copying passes before the freeze, at most. */
  readonly maxPasses: number;
  /** Executables that run before the freeze and after the thaw. A failing pre-freeze hook ends the job. */
  readonly preFreezeHook: string | undefined;
  readonly postThawHook: string | undefined;
  /** An executable that runs while everything is frozen. Its time counts. For tests and oracles. */
  readonly frozenHook: string | undefined;
}

export const defaultJobOptions: JobOptions = {
  maxFreezeMs: 5000,
  rate: undefined,
  impact: 'normal',
  onReadError: 'fail',
  connections: 2,
  reconnectMs: 60_000,
  verify: 'sample',
  fingerprints: true,
  tracker: 'auto',
  snapshot: 'auto',
  snapshotSize: undefined,
  fallback: true,
  trim: false,
  maxPasses: 8,
  preFreezeHook: undefined,
  postThawHook: undefined,
  frozenHook: undefined,
};

export interface JobEnvironment {
  readonly log: Log;
  /** Everything that writes to files. It is held while a filesystem is frozen. */
  readonly holdWhileFrozen: readonly Pick<LogSink, 'hold' | 'release'>[];
  /** If not given, nothing is ever tracked. */
  readonly startTracking?: StartTracking;
  /** Returns a test for devices that only show a recovery point (restore/mount/mount-record.ts). */
  readonly shownPoints?: () => Promise<(device: Device) => boolean>;
  /** No chain is kept after the job: for the offline tools. */
  readonly offline?: boolean;
  /** The directory of the chains. */
  readonly stateDirectory: string;
  /** If not given, nothing is backed up into a vault. */
  readonly vaults?: VaultContext;
  /**
   * Bytes of memory that each job may fill until the thaw, and whether blocks that have no room there may go to files.
   * If not given: a share of the machine's memory, and files.
   */
  readonly spool?: { readonly memory: number; readonly files: boolean };
  /** On a tmpfs: the freeze guard's record is there. */
  readonly runDirectory: string;
}

export interface RunningJob {
  readonly uuid: string;
  /** A snapshot; cheap enough to be asked several times a second. */
  status(): JobStatus;
  pause(): void;
  resume(): void;
  /** Ends the job as CANCELLED. Resolves when no part of it runs any more and everything is thawed. */
  cancel(reason: string): Promise<void>;
  /** Resolves with the final status, for a failed job too. Never rejects. */
  readonly done: Promise<JobStatus>;
}

export interface PreparedJob {
  readonly uuid: string;
  status(): JobStatus;
  start(): RunningJob;
  /** Closes everything that was opened for the checks. */
  discard(): Promise<void>;
}

/** Signature of `prepareJob` in prepare/prepare-job.ts. */
export type PrepareJob = (
  request: {
    readonly uuid: string;
    readonly kind: JobKind;
    readonly pairs: readonly DevicePair[];
    /** The inventory that the pairs come from. */
    readonly devices: readonly Device[];
    readonly options: JobOptions;
    /** Ends the checks: they soon reject with its reason. Ignored once the checks have passed. */
    readonly signal?: AbortSignal;
  },
  environment: JobEnvironment,
) => Promise<PreparedJob>;
