/** What the coordinator tells a copying thread and what it answers. All of it can be cloned to a thread. */
import type { ErrorDocument } from '../../base/errors.ts';
import type { MountState, FilesystemIdentity } from '../../filesystems/used-map.ts';
import type { SealedBytes, TargetAbilities } from '../../block/target.ts';
import type { ImageRoot } from '../../vault/writing/vault-target.ts';
import type { ExpectedFilesystems } from '../expected-filesystems.ts';
import type { TargetSpec } from '../targets.ts';
import type { ReadErrorRecord } from '../status.ts';

/**
 * What is done with the items of a segment, which are whole fingerprint units:
 * - `copy`: read, and send the blocks that are set in `send`.
 * - `compare`: read, and mark in `found` the units that differ from their fingerprints; send nothing.
 * - `frozen`: read, and keep in memory the blocks that are set in `send`; what there is no room for is sent.
 *   No file is written. `frozen-compare`: the same, and the whole of each unit that differs besides.
 * - `verify`: read from the target, and mark in `found` the units that differ from their fingerprints.
 */
export type PassMode = 'copy' | 'compare' | 'frozen' | 'frozen-compare' | 'verify';

export function isFrozen(mode: PassMode): boolean {
  return mode === 'frozen' || mode === 'frozen-compare';
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
  /** Fingerprint units that a comparing or verifying pass found different. */
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
  readonly spoolBytes: number;
  readonly depth: number;
}

export interface TargetFacts {
  readonly name: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly abilities: TargetAbilities;
  readonly minimumBlock: number;
}

export interface MapResult {
  readonly filesystem: FilesystemIdentity | undefined;
  readonly everything: boolean;
  readonly warnings: readonly string[];
  readonly usedBytes: number;
}

export interface RunResult {
  readonly readErrors: readonly ReadErrorRecord[];
  /** `verify`: the first unit that differs, in bytes, and how many. */
  readonly mismatches: { readonly first: number; readonly count: number } | undefined;
  /** Frozen passes: bytes that did not fit into memory and went to the target at once. */
  readonly overflow: number;
}

/** The calls by name, with their arguments and results. */
export interface ThreadCalls {
  /** Opens source and target. `waitMs`: how long a target that does not answer is waited for. */
  open: { args: { waitMs: number }; result: TargetFacts };
  /** Opens the target anew after its connection was lost; the source stays open. */
  reopenTarget: { args: { waitMs: number }; result: TargetFacts };
  /** Reads from another path from now on, which holds as much. */
  useSource: { args: { path: string }; result: undefined };
  /** Marks the used blocks in `used`, a Bitmap of the device in units of `unit`. `state` is that of what is mounted. */
  map: { args: { state: MountState; used: SharedArrayBuffer }; result: MapResult };
  /** Fills the `targetZero` bitmap for the blocks set in `used`, a Bitmap in units of `unit`. */
  zeroMap: { args: { used: SharedArrayBuffer }; result: undefined };
  /** Reads and hashes `count` items from `first` on, to measure how fast that goes. */
  measure: { args: { first: number; count: number }; result: { bytes: number; ms: number } };
  run: { args: { mode: PassMode; count: number }; result: RunResult };
  sendSpool: { args: undefined; result: undefined };
  dropSpool: { args: undefined; result: undefined };
  flush: { args: undefined; result: undefined };
  /** Lets the target free the space of the blocks set in `freed`, a Bitmap in units of `unit`; how many bytes that was. */
  trim: { args: { freed: SharedArrayBuffer }; result: { bytes: number } };
  /** Reads the sampled units back; how many bytes were compared. Throws TARGET_MISMATCH. */
  checkSamples: { args: undefined; result: { bytes: number } };
  /** Only for a vault: the image begins as zeros and not as an earlier one. */
  forgetBase: { args: undefined; result: undefined };
  /** Only where the target seals: see Target. */
  seal: { args: undefined; result: SealedBytes };
  /**
   * Only for a vault, when all threads have sealed: makes the map of the image. `touched`: what was written or is to
   * be left out since the image that it is based on; `used`: what it is to hold. Bitmaps in units of `unit`.
   */
  buildMap: { args: { touched: SharedArrayBuffer; used: SharedArrayBuffer }; result: ImageRoot };
  close: { args: undefined; result: undefined };
}

export type CallName = keyof ThreadCalls;

export type ThreadRequest =
  | { [Name in CallName]: { id: number; call: Name; args: ThreadCalls[Name]['args'] } }[CallName]
  /** Breaks the connection to the target, so that whatever waits for it ends. */
  | { id: 0; call: 'abort' };

export type ThreadReply =
  { readonly id: number; readonly result: unknown } | { readonly id: number; readonly error: ErrorDocument };
