/**
 * A backup job as the daemon sees it: `prepareJob` checks everything and touches nothing, `start` runs.
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
  /** How much the job may be in the way of other work on the machine. */
  readonly impact: Impact;
  readonly onReadError: 'fail' | 'zero';
  /** Connections per target where it allows several. */
  readonly connections: number;
  /** How long a lost target is waited for, milliseconds. */
  readonly reconnectMs: number;
  /** How much is read back from the target and compared after the last flush. */
  readonly verify: 'none' | 'sample' | 'full';
  /**
   * Whether what a full backup sends is fingerprinted. Without, it takes less processor time, and the next backup to
   * the same target is a full one again. A device that nothing tracks is fingerprinted all the same.
   */
  readonly fingerprints: boolean;
  /** Which tracker is used; `auto` takes the best there is. */
  readonly tracker: 'auto' | 'ebpf' | 'blktrace' | 'none';
  /**
   * Whether a mounted logical volume that nothing tracks is backed up from a temporary LVM snapshot where there is room
   * for one, or compared while it is frozen.
   */
  readonly snapshot: 'auto' | 'never';
  /** Bytes that a snapshot of a thick volume gets; undefined for the usual share. */
  readonly snapshotSize: number | undefined;
  /** Whether an incremental in doubt becomes a differential, or fails with CHAIN_IN_DOUBT. */
  readonly fallback: boolean;
  /** Whether the target is told to free the space of blocks that are no longer in use. */
  readonly trim: boolean;
  /** Copying passes before the freeze, at most. */
  readonly maxPasses: number;
  /** Executables run before the freeze and after the thaw; a failing pre-freeze hook ends the job. */
  readonly preFreezeHook: string | undefined;
  readonly postThawHook: string | undefined;
  /** Run while everything is frozen, its time counts; for tests and oracles. */
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
  /** Everything that writes to files is held while a filesystem is frozen. */
  readonly holdWhileFrozen: readonly Pick<LogSink, 'hold' | 'release'>[];
  /** Not given: nothing is ever tracked. */
  readonly startTracking?: StartTracking;
  /** Tells the devices that only show a recovery point (restore/mount/mount-record.ts). */
  readonly shownPoints?: () => Promise<(device: Device) => boolean>;
  /** No chain outlives the job: for the offline tools. */
  readonly offline?: boolean;
  /** Where the chains are kept. */
  readonly stateDirectory: string;
  /** Not given: nothing is backed up into a vault. */
  readonly vaults?: VaultContext;
  /**
   * Bytes of memory that each job may fill until the thaw, and whether what has no room may go to files. Not given: a share
   * of what the machine has, and files.
   */
  readonly spool?: { readonly memory: number; readonly files: boolean };
  /** On a tmpfs: the freeze guard's record lives there. */
  readonly runDirectory: string;
}

export interface RunningJob {
  readonly uuid: string;
  /** A snapshot; cheap enough to be asked several times a second. */
  status(): JobStatus;
  pause(): void;
  resume(): void;
  /** Ends the job as CANCELLED; resolves when nothing of it runs any more and everything is thawed. */
  cancel(reason: string): Promise<void>;
  /** Resolves with the final status, whatever it is; never rejects. */
  readonly done: Promise<JobStatus>;
}

export interface PreparedJob {
  readonly uuid: string;
  status(): JobStatus;
  start(): RunningJob;
  /** Gives back what was opened for the checks. */
  discard(): Promise<void>;
}

/** Signature of `prepareJob` in prepare.ts. */
export type PrepareJob = (
  request: {
    readonly uuid: string;
    readonly kind: JobKind;
    readonly pairs: readonly DevicePair[];
    /** The inventory that the pairs come from. */
    readonly devices: readonly Device[];
    readonly options: JobOptions;
    /** Ends the checks: rejects with its reason, soon. Of no meaning once they have passed. */
    readonly signal?: AbortSignal;
  },
  environment: JobEnvironment,
) => Promise<PreparedJob>;
