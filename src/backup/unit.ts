/**
 * One device of a job with its target: what is known of it, its copying threads, and its lines in the job's
 * status.
 */
import type { FileHandle } from 'node:fs/promises';
import type { MountedFilesystem } from '../devices/stacking.ts';
import type { CopyPool } from './copy/pool.ts';
import type { MapResult } from './copy/messages.ts';
import type { DevicePair } from './job.ts';
import type { DeviceStatus } from './status.ts';

export interface JobUnit {
  readonly pair: DevicePair;
  readonly pool: CopyPool;
  /** Writable filesystems on the device, which have to be frozen; empty: nobody writes to it. */
  readonly mounts: readonly MountedFilesystem[];
  /** Held open exclusively, so that nobody can mount or write an idle device meanwhile; undefined if in use. */
  readonly hold: FileHandle | undefined;
  /** Removed when the job ends; undefined where nothing is compared. */
  readonly fingerprintPath: string | undefined;
  map: MapResult | undefined;
  readonly status: DeviceStatus;
}

/** True where the device is written to while it is copied, so that it is compared and frozen at the end. */
export function isLive(unit: JobUnit): boolean {
  return unit.mounts.length > 0;
}

export function initialStatus(pair: DevicePair, target: string): DeviceStatus {
  const { device } = pair;
  return {
    uuid: device.filesystem?.uuid ?? '',
    device: device.path,
    target,
    filesystem: device.filesystem?.type ?? '',
    device_size: device.size,
    used_bytes: 0,
    bytes_transferred: 0,
    bytes_unsynced: 0,
    bytes_sent: 0,
    bytes_zero: 0,
    pass: 0,
    freeze_ms: null,
    bytes_verified: 0,
    read_errors: [],
  };
}
