/**
 * A readable image: a device of a recovery point, or a plain image file. Restoring, exporting, mounting and verifying use
 * only this interface.
 */
import type { Extent } from '../../base/extents.ts';
import type { ReadAt } from '../../block/source.ts';

export interface ImageReader {
  /** Name for messages. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** The unit of storage in bytes, a power of two. Reading less than a unit takes as long. */
  readonly chunkSize: number;
  /** Reads exactly `length` bytes at any alignment. The caller owns the result. Throws RangeError past the end. */
  read(offset: number, length: number): Promise<Buffer>;
  /** Reads into a buffer, which must contain zeros; otherwise like `read`. */
  readInto(into: Buffer, offset: number): Promise<void>;
  /**
   * The ranges with data within `[from, to)`, in order and disjoint. Everything else reads as zeros. A range with data may
   * contain zeros, too.
   */
  extents(from?: number, to?: number): AsyncIterable<Extent>;
  close(): Promise<void>;
}

export function readAtOf(image: ImageReader): ReadAt {
  return (offset, length) => image.read(offset, length);
}

/** Returns `size` bytes of the image from byte `start` on, such as a partition. Closing the slice closes nothing. */
export function sliceOf(image: ImageReader, start: number, size: number): ImageReader {
  const check = (offset: number, length: number): void => {
    if (offset < 0 || offset + length > size)
      throw new RangeError(
        `${image.name}: ${length} bytes at ${offset} are outside the partition of ${size} bytes`,
      );
  };
  return {
    name: image.name,
    size,
    chunkSize: image.chunkSize,
    read: async (offset, length) => {
      check(offset, length);
      return image.read(start + offset, length);
    },
    readInto: async (into, offset) => {
      check(offset, into.length);
      return image.readInto(into, start + offset);
    },
    extents: async function* (from = 0, to = size) {
      for await (const { offset, length } of image.extents(start + from, start + to))
        yield { offset: offset - start, length };
    },
    close: () => Promise.resolve(),
  };
}
