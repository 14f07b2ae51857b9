/**
 * What bytes are read from. Two ways in: `readAt` for metadata (any alignment, asynchronous, so that a source
 * may also be remote), and `DirectSource.readInto` for the copying threads (aligned, synchronous, nothing
 * allocated).
 */

/** The narrow waist of all filesystem readers: a pure function of offset and length. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>;

export interface Source {
  /** What to call it in messages: a path or URI. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Logical sector size in bytes, 512 to 65536. */
  readonly sectorSize: number;
  /**
   * Reads exactly `length` bytes at `offset`, any alignment. The result is the caller's to keep.
   * Throws DEVICE_READ_ERROR (bad sectors), DEVICE_GONE, or RangeError past the end.
   */
  readAt(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** A source on this machine, read with O_DIRECT where it can be. */
export interface DirectSource extends Source {
  /** Offset, length and buffer address must be multiples of this; a power of two. */
  readonly alignment: number;
  /**
   * Fills `buffer` (aligned, see `alignedBuffer` in linux/) from `offset`, blocking the thread. Only for
   * worker threads. A tail shorter than `alignment` at the very end of the source is allowed. Throws
   * DEVICE_READ_ERROR or DEVICE_GONE.
   */
  readInto(buffer: Uint8Array, offset: number): void;
}
