/** The messages between the coordinator and a copying thread. All of them can be cloned to a thread. */
import type { MountState, FilesystemIdentity } from '../../filesystems/used-map.ts';
import type { ImageRoot, SealedBytes, TargetAbilities } from '../../block/target.ts';
import type { ExpectedFilesystems } from '../../devices/expected-filesystems.ts';
import type { ImpactLevel } from '../impact.ts';
import type { TargetSpec } from './targets.ts';
import type { ReadErrorRecord } from '../../api/job-status.ts';
import type { SpoolRoomSetup } from './spool-room.ts';
import type { Witness } from './witnesses.ts';

/**
 * The treatment of the items of a segment, which are whole fingerprint units:
 *
 * - `copy`: read, and send the blocks that are set in `send`.
 * - `compare`: read, and mark in `found` the units that differ from their fingerprints. Send nothing.
 * - `stash`: has no items. Read the blocks that are set in `send`, and keep them in the spool. Forget the blocks of
 *   earlier rounds that are not set in `stashed`. `frozen`: the same inside the freeze.
 * - `frozen-compare`: inside the freeze, read, and keep in the spool the blocks that are set in `send`. Also keep each
 *   whole unit that differs from its fingerprint, and mark it in `found`.
 * - `verify`: read from the target, and mark in `found` the units that differ from their fingerprints.
 *
 * Inside the freeze no file is written, except the spool's own, which lies on no device of the job. If the spool has no
 * room for a block, it is sent at once if `mayOverflow` is set; otherwise the run throws FREEZE_TOO_LONG.
 */
export type PassMode = 'copy' | 'compare' | 'stash' | 'frozen' | 'frozen-compare' | 'verify';

export function isFrozen(mode: PassMode): boolean {
  return mode === 'frozen' || mode === 'frozen-compare';
}

/** True for the freeze and the rounds before it: every write during such a run has to be read inside the freeze. */
export function isUrgent(mode: PassMode): boolean {
  return mode === 'stash' || isFrozen(mode);
}

export interface ThreadSetup {
  readonly thread: number;
  readonly sourcePath: string;
  readonly target: TargetSpec;
  readonly access: 'read' | 'write';
  readonly deviceSize: number;
  /** Start offsets of the partitions with writable mounts, in bytes. Empty unless the device is a whole disk. */
  readonly livePartitions: readonly number[];
  /** The filesystems that the device must have. Undefined if no map is read. */
  readonly expected: ExpectedFilesystems | undefined;
  readonly control: SharedArrayBuffer;
  readonly threads: number;
  /** Items of the current segment: pairs of offset and length. */
  readonly items: SharedArrayBuffer;
  /** Bytes per bit of `send` and `unconfirmed`: the tracker's unit, or a larger one. */
  readonly unit: number;
  /** Blocks to be sent. */
  readonly send: SharedArrayBuffer;
  /** Blocks written since the last flush. */
  readonly unconfirmed: SharedArrayBuffer;
  /** Blocks that the spools hold and that match the device, as far as is known. */
  readonly stashed: SharedArrayBuffer;
  /**
   * Fingerprint units that a comparing or verifying pass found different. After `sendSpool`: the units whose new
   * fingerprint is known.
   */
  readonly found: SharedArrayBuffer;
  /** Fingerprint units that are known to read as zeros at the target. */
  readonly targetZero: SharedArrayBuffer;
  /** See samples.ts. */
  readonly samples: SharedArrayBuffer;
  readonly fingerprintPath: string | undefined;
  /** 32 bytes. */
  readonly key: Uint8Array;
  readonly rate: number | undefined;
  readonly onReadError: 'fail' | 'zero';
  readonly room: SpoolRoomSetup;
  readonly depth: number;
  /** How considerate runs are held back. Undefined if no run is considerate. */
  readonly impact: ImpactLevel | undefined;
}

export interface TargetFacts {
  readonly name: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly abilities: TargetAbilities;
  readonly minimumBlock: number;
}

/** A reading of the map that later readings may build on. */
export interface KeptMapArguments {
  /** Number of the reading, from 1. It builds on the reading with the previous number, or on none. */
  readonly reading: number;
  /** Blocks that were written since the previous reading began. Undefined if they are not known. */
  readonly written: { readonly unit: number; readonly bits: SharedArrayBuffer } | undefined;
}

export interface MapResult {
  readonly filesystem: FilesystemIdentity | undefined;
  readonly everything: boolean;
  readonly warnings: readonly string[];
  readonly usedBytes: number;
  /** Milliseconds that the reading took. */
  readonly ms: number;
  /** The groups of a reading that is kept; 0 if the filesystem has none. */
  readonly groups: number;
  readonly groupsRead: number;
  /** Groups of a running filesystem whose metadata contradicted itself. They count as used. */
  readonly groupsInFlux: number;
  /** The reason why all groups were read although there was an earlier reading. */
  readonly whyAll: string | undefined;
}

export interface RunResult {
  readonly readErrors: readonly ReadErrorRecord[];
  /** For `verify`: the offset in bytes of the first unit that differs, and how many differ. */
  readonly mismatches: { readonly first: number; readonly count: number } | undefined;
  /** For passes inside the freeze: bytes that had no room in memory and went to the target at once. */
  readonly overflow: number;
}

export interface RunArguments {
  readonly mode: PassMode;
  /** Items of the segment; 0 for modes without items. */
  readonly count: number;
  /** Threads that take part. In modes without items, each has its own stripes of the device. */
  readonly threads: number;
  /**
   * Index of this thread among those that take part. It differs from the thread's number after a connection was
   * refused.
   */
  readonly share: number;
  /** True if blocks that the spool has no room for may go to the target at once. */
  readonly mayOverflow: boolean;
  /** True if other work on the machine comes first (manners.ts). */
  readonly considerate: boolean;
}

export interface CompareResult {
  /** Places that were compared: all places whose content is known. */
  readonly compared: number;
  readonly differ: number;
  /** Offset in bytes of the first place that differs; -1 if there is none. */
  readonly first: number;
}

/** The calls by name, with their arguments and results. */
export interface CopyCalls {
  /** Opens source and target. `waitMs`: how long to wait for a target that does not answer, in milliseconds. */
  open: { args: { waitMs: number }; result: TargetFacts };
  /** Opens the target again after its connection was lost. The source stays open. */
  reopenTarget: { args: { waitMs: number }; result: TargetFacts };
  /** Reads from another path from now on, with the same content. */
  useSource: { args: { path: string }; result: undefined };
  /**
   * Marks the used blocks in `used`, a Bitmap of the device in units of `unit`. `state` is that of the mounted
   * filesystems. If `kept` is given, `used` is the same memory at each call, and holds the result of the previous call.
   */
  map: {
    args: { state: MountState; used: SharedArrayBuffer; kept: KeptMapArguments | undefined };
    result: MapResult;
  };
  /** Fills the `targetZero` bitmap for the blocks set in `used`, a Bitmap in units of `unit`. */
  zeroMap: { args: { used: SharedArrayBuffer }; result: undefined };
  /** Reads and hashes `count` items, starting at `first`, to measure the speed. */
  measure: { args: { first: number; count: number }; result: { bytes: number; ms: number } };
  run: { args: RunArguments; result: RunResult };
  /** Returns how many granules of the spool the target has to complete. */
  spoolLacks: { args: undefined; result: number };
  /**
   * Returns the bytes of the `send` blocks that the spool holds, or that had no room and were sent within the freeze.
   */
  spoolHolds: { args: undefined; result: number };
  /** Sends the blocks of the spool that are set in `send`. They stay in the spool until `dropSpool`. */
  sendSpool: { args: undefined; result: undefined };
  dropSpool: { args: undefined; result: undefined };
  flush: { args: undefined; result: undefined };
  /** Lets the target free the space of the blocks set in `freed`, a Bitmap in units of `unit`. Returns their bytes. */
  trim: { args: { freed: SharedArrayBuffer }; result: { bytes: number } };
  /** Reads the sampled units back. Returns how many bytes were compared. Throws TARGET_MISMATCH. */
  checkSamples: { args: undefined; result: { bytes: number } };
  /** Returns the witnesses that were chosen from all that the thread has sent since the last call. */
  takeWitnesses: { args: undefined; result: readonly Witness[] };
  /** Reads these places from the target and compares them with their hashes. */
  compare: { args: { places: readonly Witness[] }; result: CompareResult };
  /** Does nothing if the target does not commit: see CommittingTarget. */
  discardBase: { args: undefined; result: undefined };
  /** Only for a CommittingTarget. */
  seal: { args: undefined; result: SealedBytes };
  /**
   * Only for a CommittingTarget, after all threads have sealed. `touched` and `used` are bitmaps in units of `unit`.
   */
  buildMap: { args: { touched: SharedArrayBuffer; used: SharedArrayBuffer }; result: ImageRoot };
  close: { args: undefined; result: undefined };
}

export interface CopyProtocol {
  readonly calls: CopyCalls;
  readonly notices: {
    /** The first message of a job. The thread has no other job at that time. */
    begin: ThreadSetup;
    /** Breaks the connection to the target, so that calls that wait for it end. */
    abort: undefined;
  };
  readonly events: object;
}
