/** What the coordinator tells a copying thread and what it answers. All of it can be cloned to a thread. */
import type { MountState, FilesystemIdentity } from '../../filesystems/used-map.ts';
import type { ImageRoot, SealedBytes, TargetAbilities } from '../../block/target.ts';
import type { ExpectedFilesystems } from '../../devices/expected-filesystems.ts';
import type { ImpactLevel } from '../impact.ts';
import type { TargetSpec } from './targets.ts';
import type { ReadErrorRecord } from '../../api/job-status.ts';
import type { SpoolRoomSetup } from './spool-room.ts';
import type { Witness } from './witnesses.ts';

/**
 * What is done with the items of a segment, which are whole fingerprint units:
 * - `copy`: read, and send the blocks that are set in `send`.
 * - `compare`: read, and mark in `found` the units that differ from their fingerprints; send nothing.
 * - `stash`: without items: read the blocks that are set in `send`, and keep them in the spool; forget the blocks of
 *   earlier rounds that are not set in `stashed`. `frozen`: the same inside the freeze.
 * - `frozen-compare`: inside the freeze: read, and keep in the spool the blocks that are set in `send`, and the whole of
 *   each unit that differs from its fingerprint; mark these units in `found`.
 * - `verify`: read from the target, and mark in `found` the units that differ from their fingerprints.
 *
 * Inside the freeze no file is written, but the spool's own, which lies on no device of the job. Blocks that the spool has no room for are sent at once if `mayOverflow` is set;
 * otherwise the run throws FREEZE_TOO_LONG.
 */
export type PassMode = 'copy' | 'compare' | 'stash' | 'frozen' | 'frozen-compare' | 'verify';

export function isFrozen(mode: PassMode): boolean {
  return mode === 'frozen' || mode === 'frozen-compare';
}

/** The freeze, and what makes it short: whatever is written while such a run lasts has to be read inside the freeze. */
export function isUrgent(mode: PassMode): boolean {
  return mode === 'stash' || isFrozen(mode);
}

export interface ThreadSetup {
  readonly thread: number;
  readonly sourcePath: string;
  readonly target: TargetSpec;
  readonly access: 'read' | 'write';
  readonly deviceSize: number;
  /** Where the partitions with writable mounts begin, in bytes; empty but for whole disks. */
  readonly livePartitions: readonly number[];
  /** What the device's filesystems must be; undefined where no map is read. */
  readonly expected: ExpectedFilesystems | undefined;
  readonly control: SharedArrayBuffer;
  readonly threads: number;
  /** Items of the current segment: pairs of offset and length. */
  readonly items: SharedArrayBuffer;
  /** Bytes per bit of `send` and `unconfirmed`: the tracker's, or larger. */
  readonly unit: number;
  /** Blocks to be sent. */
  readonly send: SharedArrayBuffer;
  /** Blocks written since the last flush. */
  readonly unconfirmed: SharedArrayBuffer;
  /** Blocks that the spools hold as they are on the device, as far as is known. */
  readonly stashed: SharedArrayBuffer;
  /**
   * Fingerprint units that a comparing or verifying pass found different; after `sendSpool` those whose new
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
  /** How considerate runs are held back; undefined: there are none. */
  readonly impact: ImpactLevel | undefined;
}

export interface TargetFacts {
  readonly name: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly abilities: TargetAbilities;
  readonly minimumBlock: number;
}

/** A reading of the map that later ones may build on. */
export interface KeptMapArguments {
  /** Number of the reading, from 1: it builds on the one before it, or on none. */
  readonly reading: number;
  /** What was written since the reading before began; undefined: not known. */
  readonly written: { readonly unit: number; readonly bits: SharedArrayBuffer } | undefined;
}

export interface MapResult {
  readonly filesystem: FilesystemIdentity | undefined;
  readonly everything: boolean;
  readonly warnings: readonly string[];
  readonly usedBytes: number;
  /** Milliseconds that reading it took. */
  readonly ms: number;
  /** Of a reading that is kept; 0 without groups. */
  readonly groups: number;
  readonly groupsRead: number;
  /** Groups of a running filesystem that did not hang together and count as used. */
  readonly groupsInFlux: number;
  /** Why all groups were read although there was an earlier reading. */
  readonly whyAll: string | undefined;
}

export interface RunResult {
  readonly readErrors: readonly ReadErrorRecord[];
  /** `verify`: the first unit that differs, in bytes, and how many. */
  readonly mismatches: { readonly first: number; readonly count: number } | undefined;
  /** Frozen passes: bytes that did not fit into memory and went to the target at once. */
  readonly overflow: number;
}

export interface RunArguments {
  readonly mode: PassMode;
  /** Items of the segment; 0 for modes without items. */
  readonly count: number;
  /** Threads that take part: each has its own stripes of the device in modes without items. */
  readonly threads: number;
  /** Index of this thread among those that take part, which is not its number after a connection was refused. */
  readonly share: number;
  /** Whether blocks that the spool has no room for may go to the target at once. */
  readonly mayOverflow: boolean;
  /** Other work on the machine comes first (manners.ts). */
  readonly considerate: boolean;
}

export interface CompareResult {
  /** Places that were compared: all but those whose content is not known. */
  readonly compared: number;
  readonly differ: number;
  /** Offset in bytes of the first that differs; -1 if there is none. */
  readonly first: number;
}

/** The calls by name, with their arguments and results. */
export interface CopyCalls {
  /** Opens source and target. `waitMs`: how long a target that does not answer is waited for. */
  open: { args: { waitMs: number }; result: TargetFacts };
  /** Opens the target anew after its connection was lost; the source stays open. */
  reopenTarget: { args: { waitMs: number }; result: TargetFacts };
  /** Reads from another path from now on, which holds as much. */
  useSource: { args: { path: string }; result: undefined };
  /**
   * Marks the used blocks in `used`, a Bitmap of the device in units of `unit`. `state` is that of what is mounted. If
   * `kept` is given, `used` is the same memory at each call, and holds what the call before has left there.
   */
  map: {
    args: { state: MountState; used: SharedArrayBuffer; kept: KeptMapArguments | undefined };
    result: MapResult;
  };
  /** Fills the `targetZero` bitmap for the blocks set in `used`, a Bitmap in units of `unit`. */
  zeroMap: { args: { used: SharedArrayBuffer }; result: undefined };
  /** Reads and hashes `count` items from `first` on, to measure how fast that goes. */
  measure: { args: { first: number; count: number }; result: { bytes: number; ms: number } };
  run: { args: RunArguments; result: RunResult };
  /** How many granules of the spool the target has to complete. */
  spoolLacks: { args: undefined; result: number };
  /** Bytes of the blocks set in `send` that the spool holds, or that had no room and were sent within the freeze. */
  spoolHolds: { args: undefined; result: number };
  /** Sends what the spool holds of the blocks that are set in `send`. It stays until `dropSpool`. */
  sendSpool: { args: undefined; result: undefined };
  dropSpool: { args: undefined; result: undefined };
  flush: { args: undefined; result: undefined };
  /** Lets the target free the space of the blocks set in `freed`, a Bitmap in units of `unit`; how many bytes that was. */
  trim: { args: { freed: SharedArrayBuffer }; result: { bytes: number } };
  /** Reads the sampled units back; how many bytes were compared. Throws TARGET_MISMATCH. */
  checkSamples: { args: undefined; result: { bytes: number } };
  /** What was chosen of all that the thread has sent since the last call. */
  takeWitnesses: { args: undefined; result: readonly Witness[] };
  /** Reads these places from the target and holds them to their hashes. */
  compare: { args: { places: readonly Witness[] }; result: CompareResult };
  /** Does nothing if the target is none that commits: see CommittingTarget. */
  discardBase: { args: undefined; result: undefined };
  /** Only for a CommittingTarget. */
  seal: { args: undefined; result: SealedBytes };
  /**
   * Only for a CommittingTarget, when all threads have sealed. `touched` and `used` are bitmaps in units of `unit`.
   */
  buildMap: { args: { touched: SharedArrayBuffer; used: SharedArrayBuffer }; result: ImageRoot };
  close: { args: undefined; result: undefined };
}

export interface CopyProtocol {
  readonly calls: CopyCalls;
  readonly notices: {
    /** The first message of a job. The thread has no other job then. */
    begin: ThreadSetup;
    /** Breaks the connection to the target, so that calls which wait for it end. */
    abort: undefined;
  };
  readonly events: object;
}
