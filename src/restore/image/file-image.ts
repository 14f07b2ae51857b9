/** An image file, such as a device image of dattosrv, as an image. Holes of the file are ranges without data. */
import { type FileHandle, open } from 'node:fs/promises';
import { KiB } from '../../base/bytes.ts';
import { AgentError, errnoCode } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import { nextData, nextHole } from '../../linux/seek.ts';
import type { ImageReader } from './image-reader.ts';

/** Throws FILE_ERROR. */
export async function openFileImage(path: string): Promise<FileImage> {
  try {
    const handle = await open(path, 'r');
    const stat = await handle.stat();
    if (stat.isFile()) return new FileImage(path, handle, stat.size);
    await handle.close();
  } catch (error) {
    throw new AgentError('FILE_ERROR', `Cannot open ${path}: ${errnoCode(error) ?? String(error)}`, {
      cause: error,
    });
  }
  throw new AgentError('FILE_ERROR', `${path} is not an image file`);
}

export class FileImage implements ImageReader {
  readonly name: string;
  readonly size: number;
  readonly chunkSize = 64 * KiB;
  readonly #handle: FileHandle;

  /** Only for `openFileImage`. Owns the handle. */
  constructor(name: string, handle: FileHandle, size: number) {
    this.name = name;
    this.size = size;
    this.#handle = handle;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const into = Buffer.alloc(length);
    await this.readInto(into, offset);
    return into;
  }

  async readInto(into: Buffer, offset: number): Promise<void> {
    if (offset < 0 || offset + into.length > this.size)
      throw new RangeError(`${this.name}: ${into.length} bytes at ${offset} of ${this.size}`);
    for (let done = 0; done < into.length;) {
      const { bytesRead } = await this.#handle.read(into, done, into.length - done, offset + done);
      if (bytesRead === 0)
        throw new AgentError(
          'FILE_ERROR',
          `${this.name} ends at byte ${offset + done}, but had ${this.size} bytes when it was opened`,
        );
      done += bytesRead;
    }
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- the interface is asynchronous, lseek is not
  async *extents(from = 0, to = this.size): AsyncGenerator<Extent> {
    const end = Math.min(to, this.size);
    for (let at = from; at < end;) {
      const data = nextData(this.#handle.fd, at);
      if (data === undefined || data >= end) return;
      const hole = Math.min(nextHole(this.#handle.fd, data), end);
      yield { offset: data, length: hole - data };
      at = hole;
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}
