/**
 * Where an image goes. One small interface over NBD, a file, a device, null, and the decorators (rate limit,
 * faults). Every implementation runs the contract suite in target.contract.ts.
 */
import type { Extent } from '../base/extents.ts';

export interface TargetAbilities {
  /** `flush` makes completed writes durable. Without it the job warns. */
  readonly flush: boolean;
  /** `writeZeroes` is cheaper than sending zeros. */
  readonly writeZeroes: boolean;
  readonly trim: boolean;
  /** Data can be read back. */
  readonly read: boolean;
  /** Several connections see each other's writes, and a flush on one covers all. */
  readonly multiConnection: boolean;
  /** `zeroExtents` can tell what reads as zeros. */
  readonly zeroMap: boolean;
  /**
   * What is written is nobody's until the job has completed: it gathers at each connection, `seal` makes it durable,
   * and a flush only waits for what is under way. Asked of every connection. Absent: no.
   */
  readonly seals?: true;
}

/** What a sealing target has made of the bytes that it was given. */
export interface SealedBytes {
  /** Bytes that were new to it, as they were given. */
  readonly fresh: number;
  /** Bytes that it stored for them. */
  readonly stored: number;
}

export interface Target {
  /** What to call it in messages. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly abilities: TargetAbilities;
  /** Multiples that offsets and lengths should keep; a power of two, 1 where anything goes. */
  readonly minimumBlock: number;
  /** Largest `data` that `write` and `read` take, in bytes. */
  readonly maximumPayload: number;
  /** How many requests may be under way at once to good effect. */
  readonly depth: number;

  /**
   * Resolves when the target has confirmed the write (which is not yet durable). `data` must not be altered
   * until then. Throws TARGET_FULL, TARGET_READ_ONLY, TARGET_WRITE_ERROR, or NBD_CONNECTION_LOST (a
   * connection that may come back).
   */
  write(offset: number, data: Uint8Array): Promise<void>;
  /** Makes the range read as zeros; `hole` allows the target to free the space. Any length. */
  writeZeroes(offset: number, length: number, options: { hole: boolean }): Promise<void>;
  /** Advisory: the contents of the range no longer matter. Does nothing where `abilities.trim` is false. */
  trim(offset: number, length: number): Promise<void>;
  /** Makes all confirmed writes durable. Resolves at once where `abilities.flush` is false. */
  flush(): Promise<void>;
  /** Where `abilities.seals`: makes durable what this connection was given so far, and counts all of it. */
  seal?(): Promise<SealedBytes>;
  /** Reads exactly `length` bytes; the result is the caller's to keep. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Extents within the range that are known to read as zeros, sorted; empty where nothing is known. */
  zeroExtents(offset: number, length: number): AsyncIterable<Extent>;
  /** Ends politely: what is under way is finished first. */
  close(): Promise<void>;
  /** Ends at once; everything under way rejects. */
  destroy(): void;
}
