/**
 * The tracker keeps the dirty map of devices (changed block tracking). One tracker serves many devices, and each
 * device's map may feed many chains. It upholds two invariants of design.md: "take, then read" and "doubt ends the
 * epoch".
 *
 * Implementations: ebpf/, blktrace/, and one for tests, which tests inform of writes. Without a tracker, the engine
 * compares fingerprints.
 */
import type { Bitmap } from '../base/bitmap.ts';
import type { Extent } from '../base/extents.ts';
import type { Generation } from './generation.ts';

/** The identity of a tracked device, so that a map is never mistaken for another device's. */
export interface TrackedDevice {
  /** `/dev/…` */
  readonly path: string;
  /** Device numbers of the device itself. */
  readonly major: number;
  readonly minor: number;
  /** Bytes. */
  readonly size: number;
  /** For a partition: its disk, and its offset on that disk in bytes; otherwise undefined. */
  readonly partition: { readonly major: number; readonly minor: number; readonly start: number } | undefined;
  /**
   * /sys/block/DISK/diskseq, if the kernel has it (since 5.15). A number is never used twice while the machine runs.
   */
  readonly diskSequence: number | undefined;
  /** Filesystem UUID, or empty. */
  readonly uuid: string;
}

export type DeviceNumbers = Pick<TrackedDevice, 'major' | 'minor'>;

export interface Epoch {
  /** Random. If the ID differs, writes may have been missed in between. */
  readonly id: string;
  /** Milliseconds since 1970. */
  readonly since: number;
}

/** The two values that tie a map that continues to the chains. */
export interface TrackedEpoch {
  readonly epoch: Epoch;
  /** Generation of the map now. */
  readonly generation: Generation;
}

export interface Taken extends TrackedEpoch {
  /**
   * Every unit that a write, discard or write-zeroes may have changed since the last committed take. The request may
   * have completed before the take, or may still be under way at the take. May hold more, never less.
   */
  readonly dirty: Bitmap;
  /**
   * Lets the tracker forget the marks that were taken. Call it only when the pending maps that replace them are
   * durable. Until then the next take yields these marks again, also after a SIGKILL if the tracker is pinned. Touches
   * no file.
   *
   * `next` becomes the map's generation before anything is forgotten. Returns false if nothing was forgotten because a
   * later take yields the marks too: then the generation stays the same.
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
  /** True if tracking continues while the daemon does not run. */
  readonly pinned: boolean;
  /** Bytes marked now. Reading this is not a take. */
  readonly dirtyBytes: number;
}

/** The present pinned map of a device that may be gone. Reading it is not a take. */
export interface Remains extends TrackedEpoch {
  /** UUID of the filesystem when the epoch began, or empty. */
  readonly uuid: string;
  /** The marks that a take would yield. */
  readonly dirty: Bitmap;
  /** Why the device with these numbers is not (or no longer) the device of the map; undefined if it is. */
  readonly gone: string | undefined;
  /** Why writes may have been missed while the device was there; undefined if none were missed. */
  readonly lost: string | undefined;
}

export interface Tracker {
  readonly kind: TrackingState['kind'];
  /**
   * Begins to track, or continues the epoch of a pinned map. It continues only if all identifiers of the device are the
   * same (boot, disk sequence, numbers, size, offset, UUID). `doubt` says why an earlier epoch could not be continued.
   * After a new epoch began, the caller waits for requests under way to end (sync or a freeze) before it copies. Throws
   * NOT_SUPPORTED or NO_PERMISSION with a hint that says what would help.
   */
  track(device: TrackedDevice): Promise<TrackedEpoch & { readonly doubt: string | undefined }>;
  /**
   * Takes the dirty map (see `Taken`). Must be quick and touch no file, because it is called inside the freeze. Throws
   * EPOCH_ENDED with the reason if writes may have been missed. Then a new `track` begins again.
   *
   * `frozen`: the device's filesystem is frozen, so its earlier writes have ended. A tracker that cannot see every
   * write end (blktrace on stacked devices) yields those writes again at each take until a take has `frozen`.
   */
  take(device: TrackedDevice, options?: { readonly frozen?: boolean }): Promise<Taken>;
  /**
   * Makes the epoch that `track` has just begun the continuation of an epoch of an earlier boot. `dirty` (in any unit)
   * holds the marks that were not yet taken from the earlier epoch. Every take contains them until a take is committed.
   * The caller has made sure that nothing was written in between. A tracker that cannot continue lacks this method.
   * `generation` is undefined in records of older versions.
   */
  resume?(
    device: TrackedDevice,
    from: {
      readonly epoch: Epoch;
      readonly generation: Generation | undefined;
      readonly dirty: Bitmap;
    },
  ): Promise<void>;
  /** Adds extents to the next take that were written while no tracker could see the writes. */
  mark?(device: DeviceNumbers, extents: Iterable<Extent>): Promise<void>;
  state(device: TrackedDevice): TrackingState | undefined;
  /**
   * Returns why writes may have been missed since the epoch began; undefined if none were. Not a take, as with `state`.
   */
  doubt?(device: TrackedDevice): string | undefined;
  /**
   * Returns the present map of a device, also if the device is gone. Trackers whose maps end with the
   * tracker lack this method.
   */
  remains?(device: DeviceNumbers): Remains | undefined;
  /** Ends tracking of a device, and removes its pins and maps. */
  untrack(device: DeviceNumbers): Promise<void>;
  /**
   * Returns the devices with a map, also those that an earlier process began to track and that this process was not
   * asked for yet.
   */
  tracked?(): readonly (DeviceNumbers & Pick<TrackedDevice, 'path' | 'size'>)[];
  /** Ends all tracking, and removes pins and maps. Closes the tracker. */
  stop?(): Promise<void>;
  /** Closes what this process holds. Pinned maps continue in the kernel. */
  close(): Promise<void>;
}
