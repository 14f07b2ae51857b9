/**
 * One device of a job with its target. A job of any kind needs a `JobDevice`. A backup needs a `DeviceBackup`, which is
 * read-only but for its ledger, its allocation map, and its part of the job's status.
 */
import type { FileHandle } from 'node:fs/promises';
import type { Bitmap } from '../base/bitmap.ts';
import type { Attachment } from '../devices/attachment.ts';
import type { MountedFilesystem } from '../devices/stacking.ts';
import type { AllocationMap } from './allocation-map.ts';
import type { CopyPool } from './copy/pool.ts';
import type { DevicePair } from './job.ts';
import type { JobContext } from './job-context.ts';
import type { TargetLedger } from './ledger/target-ledger.ts';
import type { BackupPlan } from './plan.ts';
import type { DeviceStatus } from '../api/job-status.ts';
import type { VaultJob } from './vault/vault-job.ts';

/** What a job of any kind needs of each of its devices. */
export interface JobDevice {
  readonly pair: DevicePair;
  /** The copying threads. */
  readonly pool: CopyPool;
  readonly status: DeviceStatus;
  /** True if the device is written to while it is copied: passes repeat, and a freeze ends them. */
  readonly isLive: boolean;
  /** Bytes that the job has to deal with. */
  readonly totalBytes: () => number;
  /** Ends threads and holds when the job has ended. */
  readonly close: () => Promise<void>;
  /** Undoes all that the preparation made, if the job does not begin. */
  readonly discard: () => Promise<void>;
}

export interface DeviceBackup extends JobDevice {
  readonly ledger: TargetLedger;
  readonly plan: BackupPlan;
  readonly map: AllocationMap;
  readonly instant: Instant;
  /** The vault that the image becomes a recovery point in. Undefined if the target is an image in place. */
  readonly vault: VaultJob | undefined;
  /** Writable filesystems on the device, which have to be frozen. Empty: nobody writes to it, or nobody minds. */
  readonly mounts: readonly MountedFilesystem[];
  /** Holds an idle device exclusively, so that nobody mounts or writes it meanwhile. Undefined if it is in use. */
  readonly hold: FileHandle | undefined;
  /** What the device's number stood for when the job was prepared. */
  readonly attachment: Attachment;
  /** True if writes inside the freeze can only be those of programs that no freeze stops (and not of swap). */
  readonly isWatched: boolean;
  /** Passes can compare, since what is sent is fingerprinted. */
  readonly isComparable: boolean;
  /** Why no LVM snapshot is taken. Empty if nobody would expect one. */
  readonly noSnapshot: string;
}

/** What a freeze found out about one device. */
export interface FrozenResult {
  /** All that the target lacks of the frozen device. */
  readonly kept: Bitmap;
  /** Bytes that had no room in memory and went to the target within the freeze. */
  readonly overflow: number;
  /** True if a connection that is lost after the thaw can be made good from memory. */
  readonly isResendable: boolean;
  /** True if something wrote to the device although its filesystems were frozen. */
  readonly isWritten: boolean;
}

/** How the image of a device comes to hold one instant: by a freeze, by a snapshot, or because nobody writes. */
export interface Instant {
  readonly kind: 'frozen' | 'snapshot' | 'idle';
  /** True if device-mapper freezes the filesystem itself, so that the freeze window must not. */
  readonly freezesItself: boolean;
  /** Reads the allocation map, and begins the ledger. */
  map(device: DeviceBackup, job: JobContext): Promise<void>;
  firstPass(device: DeviceBackup, job: JobContext): Promise<void>;
  furtherPasses(device: DeviceBackup, job: JobContext): Promise<void>;
  /** Called right before the freeze, of live devices. */
  beforeFreeze(device: DeviceBackup, job: JobContext): Promise<void>;
  /**
   * Called inside the freeze, of live devices. `mayOverflow`: what has no room in memory may go to the target. Returns
   * what is to be sent after the thaw; undefined: nothing. Throws FREEZE_TOO_LONG.
   */
  inFreeze(
    device: DeviceBackup,
    job: JobContext,
    options: { readonly mayOverflow: boolean },
  ): Promise<FrozenResult | undefined>;
  /** Copies what had to wait for the thaw of all devices. */
  afterFreeze(device: DeviceBackup, job: JobContext): Promise<void>;
  /** Proves that the image is of one instant. */
  prove(device: DeviceBackup, job: JobContext): Promise<void>;
}

/** True if syncing is enough to have the allocation map on the device. */
export function isSynced({ mounts }: Pick<DeviceBackup, 'mounts'>): boolean {
  return mounts.every(({ type }) => type.startsWith('ext'));
}

/** The blocks that the freeze would have to read now: the target lacks them, and memory does not hold them. */
export function toRead({ ledger, pool }: DeviceBackup): Bitmap {
  return ledger.missing(pool.stashed);
}

/** Bytes of memory that reading them needs, besides those that are used again. */
export function roomNeeded(device: DeviceBackup): number {
  return Math.max(0, toRead(device).bytes() - device.pool.roomToReuse);
}
