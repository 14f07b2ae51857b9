/**
 * The interface of everything that an image is written to: NBD, a file, a device, null, and the decorators (rate limit,
 * faults). Every implementation passes the contract suite in target.contract.ts.
 */
import type { Bitmap } from '../base/bitmap.ts';
import type { Extent } from '../base/extents.ts';

export interface TargetAbilities {
  /** `flush` makes completed writes durable. If it does not, the job warns. */
  readonly flush: boolean;
  /** `writeZeroes` is cheaper than sending zeros. */
  readonly writeZeroes: boolean;
  readonly trim: boolean;
  /** Data can be read back. */
  readonly read: boolean;
  /** Several connections see each other's writes, and a flush on one connection covers all of them. */
  readonly multiConnection: boolean;
  /** `zeroExtents` can find ranges that read as zeros. */
  readonly zeroMap: boolean;
  /**
   * The target is a `CommittingTarget`: data becomes visible only when the job completes. Default: false.
   */
  readonly seals?: true;
}

/** Byte counts of a `CommittingTarget`. */
export interface SealedBytes {
  /** Bytes that the target did not have yet, in their original length. */
  readonly fresh: number;
  /** Bytes that the target stored for the fresh bytes. */
  readonly stored: number;
}

export interface Target {
  /** Name for messages. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly abilities: TargetAbilities;
  /** Offsets and lengths should be multiples of this: a power of two, 1 if any value is allowed. */
  readonly minimumBlock: number;
  /** Most bytes that one `write` or `read` may transfer. */
  readonly maximumPayload: number;
  /** Useful number of requests under way at once. */
  readonly depth: number;

  /**
   * Resolves when the target has confirmed the write, which is not durable yet. Do not change `data` until then. Throws
   * TARGET_FULL, TARGET_READ_ONLY, TARGET_WRITE_ERROR, or NBD_CONNECTION_LOST (the connection may be restored).
   */
  write(offset: number, data: Uint8Array): Promise<void>;
  /** Makes the range read as zeros; `hole` allows the target to free the space. Any length. */
  writeZeroes(offset: number, length: number, options: { hole: boolean }): Promise<void>;
  /** Tells the target that the contents of the range no longer matter. Does nothing if `abilities.trim` is false. */
  trim(offset: number, length: number): Promise<void>;
  /** Makes all confirmed writes durable. Resolves at once if `abilities.flush` is false. */
  flush(): Promise<void>;
  /** Reads exactly `length` bytes. The caller may keep the result. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Extents within the range that are known to read as zeros, sorted; empty if none are known. */
  zeroExtents(offset: number, length: number): AsyncIterable<Extent>;
  /** Closes the target after all requests under way have finished. */
  close(): Promise<void>;
  /** Closes the target at once. Requests under way reject. */
  destroy(): void;
}

/** The map of an image that is complete in a `CommittingTarget`. */
export interface ImageRoot {
  /** Name of the root page, in hex. */
  readonly root: string;
  readonly levels: number;
}

/**
 * A target that keeps earlier images and makes a new one beside them: nothing of it is visible before the job completes.
 * Each connection buffers its own data; `flush` only waits for requests under way.
 */
export interface CommittingTarget extends Target {
  /** Makes the image start as zeros instead of as the image that it builds on. Call it before the first write. */
  discardBase(): void;
  /**
   * Makes all data of this connection so far durable, and returns its byte counts. The target can be written and sealed
   * again afterwards.
   */
  seal(): Promise<SealedBytes>;
  /**
   * Stores the map of the image, when all connections have sealed. `touched`: all ranges that were written, and ranges of
   * the earlier image to leave out. `used`: the ranges that the image holds.
   */
  buildMap(touched: Bitmap, used: Bitmap): Promise<ImageRoot>;
}

export function isCommitting(target: Target): target is CommittingTarget {
  return target.abilities.seals === true;
}
