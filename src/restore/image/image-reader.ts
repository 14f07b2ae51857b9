/**
 * An image as this room reads it: a device of a recovery point, or a plain image file. Restoring, exporting, mounting
 * and verifying know nothing else of where it comes from.
 */
import type { Extent } from '../../base/extents.ts';
import type { ReadAt } from '../../block/source.ts';

export interface ImageReader {
  /** For messages. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Multiples in which it is stored, bytes: reading less costs as much. A power of two. */
  readonly chunkSize: number;
  /** Reads exactly `length` bytes, any alignment; the result is the caller's to keep. RangeError past the end. */
  read(offset: number, length: number): Promise<Buffer>;
  /** As `read`, into a buffer that holds zeros. */
  readInto(into: Buffer, offset: number): Promise<void>;
  /**
   * Where it holds data within `[from, to)`, in order, disjoint and cut to that range; everything else reads as zeros. What
   * holds data may be zeros too.
   */
  extents(from?: number, to?: number): AsyncIterable<Extent>;
  close(): Promise<void>;
}

export function readAtOf(image: ImageReader): ReadAt {
  return (offset, length) => image.read(offset, length);
}

/** The image from byte `start` on, `size` bytes: a partition. Closing it closes nothing. */
export function sliceOf(image: ImageReader, start: number, size: number): ImageReader {
  const check = (offset: number, length: number): void => {
    if (offset < 0 || offset + length > size)
      throw new RangeError(`${image.name}: ${length} bytes at ${offset} of a partition of ${size}`);
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
