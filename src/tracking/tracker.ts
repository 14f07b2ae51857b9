/**
 * The tracker: keeps the dirty map of devices. One tracker serves many devices, and each device's map may feed
 * many chains; the invariants of design.md that it stands for are "take, then read" and "doubt ends the epoch".
 *
 * Implementations: ebpf/, blktrace/, and one for tests that is told what was written. Without a tracker
 * there is none of this, and the engine compares fingerprints.
 */
import type { Bitmap } from '../base/bitmap.ts';
import type { Extent } from '../base/extents.ts';
import type { Generation } from './generation.ts';

/** What a tracked device is, so that a map is never mistaken for another device's. */
export interface TrackedDevice {
  /** `/dev/…` */
  readonly path: string;
  /** Of the device itself. */
  readonly major: number;
  readonly minor: number;
  /** Bytes. */
  readonly size: number;
  /** For a partition: its disk and where it begins there, in bytes; otherwise undefined. */
  readonly partition: { readonly major: number; readonly minor: number; readonly start: number } | undefined;
  /** /sys/block/DISK/diskseq, where the kernel has it (5.15): never used twice while the machine runs. */
  readonly diskSequence: number | undefined;
  /** Filesystem UUID, or empty. */
  readonly uuid: string;
}

export type DeviceNumbers = Pick<TrackedDevice, 'major' | 'minor'>;

export interface Epoch {
  /** Random; another one: writes may have been missed in between. */
  readonly id: string;
  /** Milliseconds since 1970. */
  readonly since: number;
}

/** What a map that goes on is tied to the chains by. */
export interface TrackedEpoch {
  readonly epoch: Epoch;
  /** Of the map now. */
  readonly generation: Generation;
}

export interface Taken extends TrackedEpoch {
  /**
   * Every unit that a write, discard or write-zeroes may have changed, completed before the take or still under
   * way at it, since the last take that was committed. May hold more, never less.
   */
  readonly dirty: Bitmap;
  /**
   * Lets the tracker forget what was taken. To be called only when the pending maps that replace it are durable;
   * until then (also across a SIGKILL, where the tracker is pinned) the next take yields it again. Touches no file.
   *
   * `next` becomes the map's generation before anything is forgotten. False if nothing was forgotten, since a later
   * take yields it too: the generation is the same then.
   */
  commit(next: Generation): boolean;
}

export interface TrackingState {
  readonly kind: 'ebpf' | 'blktrace' | 'test';
  readonly epoch: Epoch;
  /** Bytes per bit of the dirty map. */
  readonly unit: number;
  /** Bytes of kernel and user memory that this device's map costs. */
  readonly memory: number;
  /** It goes on while the daemon does not run. */
  readonly pinned: boolean;
  /** Bytes marked now; a look, not a take. */
  readonly dirtyBytes: number;
}

/** The pinned map of a device that may be gone, as it is now; a look, not a take. */
export interface Remains extends TrackedEpoch {
  /** Of the filesystem when the epoch began, or empty. */
  readonly uuid: string;
  /** What a take would yield. */
  readonly dirty: Bitmap;
  /** Why the device under these numbers is not the one of the map (any more); undefined if it is. */
  readonly gone: string | undefined;
  /** Why writes may have been missed while the device was there; undefined if none were. */
  readonly lost: string | undefined;
}

export interface Tracker {
  readonly kind: TrackingState['kind'];
  /**
   * Begins to track, or continues the epoch of a pinned map whose device is the same by all marks (boot, disk
   * sequence, numbers, size, offset, UUID). `doubt` says why an earlier epoch could not be continued. After a
   * new epoch began the caller drains what was under way (sync or a freeze) before it copies. Throws
   * NOT_SUPPORTED or NO_PERMISSION with what would help.
   */
  track(device: TrackedDevice): Promise<TrackedEpoch & { readonly doubt: string | undefined }>;
  /**
   * Takes the dirty map (see `Taken`). Must be quick and touch no file: it is called inside the freeze. Throws
   * EPOCH_ENDED, with the reason, where writes may have been missed; a new `track` begins anew then.
   *
   * `frozen`: the device's filesystem is frozen, so that what it wrote before has ended. A tracker that cannot
   * see every write end (blktrace on stacked devices) yields those again at each take until it is told so.
   */
  take(device: TrackedDevice, options?: { readonly frozen?: boolean }): Promise<Taken>;
  /**
   * Makes the epoch that `track` has just begun the continuation of one of an earlier boot: `dirty` (in any unit) is
   * what that one had yet to give, and is in every take until it is committed. The caller has made sure that nothing
   * was written in between. Trackers that cannot, have none. `generation` is undefined in records of older versions.
   */
  resume?(
    device: TrackedDevice,
    from: {
      readonly epoch: Epoch;
      readonly generation: Generation | undefined;
      readonly dirty: Bitmap;
    },
  ): Promise<void>;
  /** Adds to what the next take yields what was written where nothing could see it. */
  mark?(device: DeviceNumbers, extents: Iterable<Extent>): Promise<void>;
  state(device: TrackedDevice): TrackingState | undefined;
  /** Why writes may have been missed since the epoch began; undefined where none were. A look, like `state`. */
  doubt?(device: TrackedDevice): string | undefined;
  /** What is known of a device that has a map, also if the device is gone. Trackers whose maps end with it have none. */
  remains?(device: DeviceNumbers): Remains | undefined;
  /** Ends tracking of a device, pins and maps included. */
  untrack(device: DeviceNumbers): Promise<void>;
  /** Devices with a map, also those that an earlier process began with and this one was not asked for yet. */
  tracked?(): readonly (DeviceNumbers & Pick<TrackedDevice, 'path' | 'size'>)[];
  /** Ends all tracking, pins and maps included; the tracker is closed then. */
  stop?(): Promise<void>;
  /** Closes what this process holds; pinned maps go on in the kernel. */
  close(): Promise<void>;
}
