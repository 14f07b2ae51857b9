/**
 * One device of a job with its target: what is known of it, its copying threads, its chain, and its lines in the
 * job's status.
 */
import type { FileHandle } from 'node:fs/promises';
import type { Bitmap } from '../base/bitmap.ts';
import type { Log } from '../base/log.ts';
import type { Attachment } from '../devices/attachment.ts';
import type { LvmSnapshot } from '../devices/lvm/snapshot.ts';
import type { MountedFilesystem } from '../devices/stacking.ts';
import type { WriteLook } from '../devices/write-watch.ts';
import type { Chain, ChainBase } from '../tracking/chain.ts';
import type { Epoch } from '../tracking/tracker.ts';
import type { MapResult } from './copy/messages.ts';
import type { CopyPool } from './copy/pool.ts';
import type { Feed } from './feed.ts';
import type { DevicePair } from './job.ts';
import type { Plan } from './plan.ts';
import type { RecentUnits } from './recent-units.ts';
import type { DeviceStatus } from './status.ts';
import type { VaultImage } from './vault-job.ts';
import type { WrittenSince } from './written-since.ts';

/** What a job of any kind needs of each of its devices. */
export interface JobMember {
  readonly pair: DevicePair;
  readonly pool: CopyPool;
  /** Writable filesystems on the device, which have to be frozen; empty: nobody writes to it, or nobody minds. */
  readonly mounts: readonly MountedFilesystem[];
  /** Ends threads and holds when the job has ended. */
  readonly close: () => Promise<void>;
  /** Undoes all that the preparation made, where the job does not begin. */
  readonly discard: () => Promise<void>;
  readonly status: DeviceStatus;
}

export interface JobUnit extends JobMember {
  readonly chain: Chain;
  /** Chains that will not be true of the target any more when this job writes to it. */
  readonly rivals: readonly Chain[];
  readonly recent: RecentUnits;
  readonly plan: Plan;
  /** What the tracker knows; undefined where nothing tracks the device, or no longer. */
  tracking: { readonly feed: Feed; readonly epoch: Epoch } | undefined;
  /** Held open exclusively, so that nobody can mount or write an idle device meanwhile; undefined if in use. */
  readonly hold: FileHandle | undefined;
  /** What gives the instant instead of a pass inside the freeze; undefined where there is no snapshot. */
  readonly snapshot: UnitSnapshot | undefined;
  /** Why there is none; empty where nobody would expect one. */
  readonly noSnapshot: string;
  map: MapResult | undefined;
  /** What was written since the map was read. */
  readonly written: WrittenSince;
  /** Milliseconds that the last reading of the map took. */
  mapMs: number;
  readonly log: Log;
  /** Of an idle device: `map` is the one that was read last. False after a reading that contradicted itself. */
  mapped: boolean;
  /** What the device's number stood for when the job was prepared. */
  readonly attachment: Attachment;
  /** Of an idle device: its counters of writes before the last pass read anything of it. */
  look: WriteLook | undefined;
  /** Of a live device: programs that no freeze stops can be told from the kernel's own writes (swap). */
  readonly watched: boolean;
  /** Passes can compare, since what is sent is fingerprinted. */
  readonly comparable: boolean;
  /** Where the target is a vault. */
  readonly image: VaultImage | undefined;
  /** What the next backup builds on, once the recovery point is there. */
  base?: ChainBase | undefined;
  /** What the target may hold data of (freed.ts); undefined until the job has begun to write to it. */
  held: Bitmap | undefined;
}

export interface UnitSnapshot {
  readonly snapshot: LvmSnapshot;
  /** LVM freezes the one filesystem there is by itself, for as long as it takes; otherwise ours is around its own. */
  readonly freezes: boolean;
}

/** True where the device is written to while it is copied, so that it has to be frozen at the end. */
export function isLive(unit: Pick<JobUnit, 'mounts'>): boolean {
  return unit.mounts.length > 0;
}

/** True where syncing is enough to have the map on the device. */
export function synced(unit: Pick<JobUnit, 'mounts'>): boolean {
  return unit.mounts.every(({ type }) => type.startsWith('ext'));
}

/** The blocks that the target lacks and that are in use. */
export function missing(unit: JobUnit): Bitmap {
  return unit.chain.pending.intersection(unit.pool.used);
}

export function initialStatus(pair: DevicePair, target: string): DeviceStatus {
  const { device } = pair;
  return {
    uuid: device.filesystem?.uuid ?? '',
    device: device.path,
    target,
    filesystem: device.filesystem?.type ?? '',
    kind: 'full',
    fallback_reason: null,
    tracker: 'none',
    device_size: device.size,
    used_bytes: 0,
    bytes_transferred: 0,
    bytes_unsynced: 0,
    bytes_sent: 0,
    bytes_zero: 0,
    pass: 0,
    freeze_ms: null,
    bytes_verified: 0,
    bytes_mismatched: 0,
    bytes_unknown: 0,
    snapshot: null,
    bytes_trimmed: 0,
    read_errors: [],
    point: null,
    bytes_stored: null,
  };
}
