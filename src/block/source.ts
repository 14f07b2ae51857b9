/**
 * The interface of everything that bytes are read from. `readAt` is for metadata: any alignment, and asynchronous, so a
 * source may also be remote. `DirectSource.readInto` is for the copying threads: aligned, synchronous, no allocation.
 */

/** The only way in which filesystem readers read: a pure function of offset and length. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>;

export interface Source {
  /** Name for messages: a path or URI. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Logical sector size in bytes, 512 to 65536. */
  readonly sectorSize: number;
  /**
   * Reads exactly `length` bytes at `offset`, any alignment. The caller may keep the result.
   * Throws DEVICE_READ_ERROR (bad sectors), DEVICE_GONE, or RangeError past the end.
   */
  readAt(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** A source on this machine, read with O_DIRECT if possible. */
export interface DirectSource extends Source {
  /** Offset, length and buffer address must be multiples of this; a power of two. */
  readonly alignment: number;
  /**
   * Fills `buffer` (aligned, see `alignedBuffer` in linux/) with the data at `offset`. Blocks the thread: only worker
   * threads may call it. At the end of the source, the buffer may end before a multiple of `alignment`. Throws
   * DEVICE_READ_ERROR or DEVICE_GONE.
   */
  readInto(buffer: Uint8Array, offset: number): void;
}
