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

/** The parts of each device that a job of any kind needs. */
export interface JobDevice {
  readonly pair: DevicePair;
  /** The copying threads. */
  readonly pool: CopyPool;
  readonly status: DeviceStatus;
  /** True if programs write to the device while it is copied: passes repeat, and a freeze ends them. */
  readonly isLive: boolean;
  /** Bytes that the job has to process. */
  readonly totalBytes: () => number;
  /** Ends the threads and releases the device. Called when the job has ended. */
  readonly close: () => Promise<void>;
  /** Undoes all that the preparation made, if the job does not begin. */
  readonly discard: () => Promise<void>;
}

export interface DeviceBackup extends JobDevice {
  readonly ledger: TargetLedger;
  readonly plan: BackupPlan;
  readonly map: AllocationMap;
  readonly instant: Instant;
  /** The vault in which the image becomes a recovery point. Undefined if the target is an image in place. */
  readonly vault: VaultJob | undefined;
  /**
   * Writable filesystems on the device, which have to be frozen. Empty if the device is not written to, or need not be
   * frozen.
   */
  readonly mounts: readonly MountedFilesystem[];
  /** Keeps an idle device open exclusively, so that no program mounts it in the meantime. Undefined if it is in use. */
  readonly hold: FileHandle | undefined;
  /** The device that its number stood for when the job was prepared. */
  readonly attachment: Attachment;
  /**
   * True if a write inside the freeze shows that the image is not of one instant. False if swap, or a filesystem that
   * cannot be frozen, may write there.
   */
  readonly isWatched: boolean;
  /** True if a pass can compare the device, because blocks are fingerprinted when they are sent. */
  readonly isComparable: boolean;
  /** The reason why no LVM snapshot is taken. Empty if none would be expected. */
  readonly noSnapshot: string;
}

/** Facts that a freeze found about one device. */
export interface FrozenResult {
  /** All blocks of the frozen device that the target lacks. */
  readonly kept: Bitmap;
  /** Bytes that had no room in memory and went to the target within the freeze. */
  readonly overflow: number;
  /** True if the data in memory is enough to repair a connection that is lost after the thaw. */
  readonly isResendable: boolean;
  /** True if something wrote to the device although its filesystems were frozen. */
  readonly isWritten: boolean;
}

/** The way in which the image of a device comes to hold one instant: a freeze, a snapshot, or the absence of writes. */
export interface Instant {
  readonly kind: 'frozen' | 'snapshot' | 'idle';
  /** True if device-mapper freezes the filesystem itself, so that the freeze window must not. */
  readonly freezesItself: boolean;
  /** Reads the allocation map, and begins the ledger. */
  map(device: DeviceBackup, job: JobContext): Promise<void>;
  firstPass(device: DeviceBackup, job: JobContext): Promise<void>;
  furtherPasses(device: DeviceBackup, job: JobContext): Promise<void>;
  /** Called right before the freeze, for live devices. */
  beforeFreeze(device: DeviceBackup, job: JobContext): Promise<void>;
  /**
   * Called inside the freeze, for live devices. `mayOverflow`: blocks that memory has no room for may go to the target.
   * Returns the blocks to send after the thaw, or undefined if there are none. Throws FREEZE_TOO_LONG.
   */
  inFreeze(
    device: DeviceBackup,
    job: JobContext,
    options: { readonly mayOverflow: boolean },
  ): Promise<FrozenResult | undefined>;
  /** Copies the blocks that had to wait for the thaw of all devices. */
  afterFreeze(device: DeviceBackup, job: JobContext): Promise<void>;
  /** Proves that the image is of one instant. */
  prove(device: DeviceBackup, job: JobContext): Promise<void>;
}

/** True if syncing is enough to bring the allocation map to the device. */
export function isSynced({ mounts }: Pick<DeviceBackup, 'mounts'>): boolean {
  return mounts.every(({ type }) => type.startsWith('ext'));
}

/** The blocks that the freeze would have to read now: the target lacks them, and memory does not hold them. */
export function toRead({ ledger, pool }: DeviceBackup): Bitmap {
  return ledger.missing(pool.stashed);
}

/** Bytes of memory that reading these blocks needs, in addition to the memory that is used again. */
export function roomNeeded(device: DeviceBackup): number {
  return Math.max(0, toRead(device).bytes() - device.pool.roomToReuse);
}
