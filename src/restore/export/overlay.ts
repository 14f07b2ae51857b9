/**
 * The data that clients write to an export of a recovery point, in a sparse file. The name of the file is removed at once,
 * so the kernel frees the file when this process ends, also after a crash. Data is copied up in whole units.
 */
import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pLimit from 'p-limit';
import { Bitmap } from '../../base/bitmap.ts';
import { alignDown, alignUp, KiB } from '../../base/bytes.ts';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { isUnsupported } from '../../block/write-errors.ts';
import { punchHole } from '../../linux/fallocate.ts';
import type { StatusExtent } from '../../nbd/server/backend.ts';
import type { ImageReader } from '../image/image-reader.ts';

/** A write to a part of a unit copies the whole unit up first. Bytes. */
const unit = 64 * KiB;

export class Overlay {
  readonly #image: ImageReader;
  readonly #file: FileHandle;
  /** The units that are read from the file instead of the image. */
  readonly #present: Bitmap;
  /** Changes run one after the other. Otherwise a copy-up could overwrite a concurrent write to the same unit. */
  readonly #inTurn = pLimit(1);

  private constructor(image: ImageReader, file: FileHandle) {
    this.#image = image;
    this.#file = file;
    this.#present = new Bitmap(image.size, unit);
  }

  /** Creates the file in `directory`, which needs room for the data that clients write. Throws FILE_ERROR. */
  static async create(image: ImageReader, directory = tmpdir()): Promise<Overlay> {
    try {
      const folder = await mkdtemp(join(directory, 'dattod-overlay-'));
      try {
        const file = await open(join(folder, 'overlay'), 'wx+', 0o600);
        await file.truncate(image.size);
        return new Overlay(image, file);
      } finally {
        await rm(folder, { recursive: true });
      }
    } catch (error) {
      throw new AgentError(
        'FILE_ERROR',
        `Cannot create an overlay of ${image.size} bytes in ${directory}: ${errnoCode(error) ?? String(error)}`,
        { cause: error },
      );
    }
  }

  async read(into: Buffer, offset: number): Promise<void> {
    for (const { from, end, present } of this.#runs(offset, into.length)) {
      const part = into.subarray(from - offset, end - offset);
      if (present) await this.#readFile(part, from);
      else await this.#image.readInto(part.fill(0), from);
    }
  }

  /** The caller must not change `data` until this resolves. */
  write(data: Uint8Array, offset: number): Promise<void> {
    return this.#inTurn(async () => {
      await this.#raiseEdges(offset, offset + data.length);
      await this.#writeFile(data, offset);
      this.#present.mark(offset, data.length);
    });
  }

  zero(offset: number, length: number, hole: boolean): Promise<void> {
    return this.#inTurn(() => this.#zero(offset, length, hole));
  }

  async #zero(offset: number, length: number, hole: boolean): Promise<void> {
    if (length === 0) return;
    await this.#raiseEdges(offset, offset + length);
    if (!hole || !this.#punch(offset, length)) {
      const zeros = Buffer.alloc(Math.min(length, 16 * unit));
      for (let done = 0; done < length; done += zeros.length)
        await this.#writeFile(zeros.subarray(0, Math.min(zeros.length, length - done)), offset + done);
    }
    this.#present.mark(offset, length);
  }

  async status(offset: number, length: number, limit: number): Promise<StatusExtent[]> {
    const found: StatusExtent[] = [];
    const end = offset + length;
    let at = offset;
    for await (const { offset: from, length: bytes } of this.#image.extents(offset, end)) {
      this.#add(found, at, from, { hole: true, zero: true });
      this.#add(found, from, from + bytes, { hole: false, zero: false });
      at = from + bytes;
      if (found.length >= limit) return found.slice(0, limit);
    }
    this.#add(found, at, end, { hole: true, zero: true });
    return found.slice(0, limit);
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /** Adds the runs of a range of the image. Units that were written count as data. */
  #add(found: StatusExtent[], from: number, end: number, kind: { hole: boolean; zero: boolean }): void {
    if (from >= end) return;
    for (const run of this.#runs(from, end - from)) {
      const length = run.end - run.from;
      found.push({ length, ...(run.present ? { hole: false, zero: false } : kind) });
    }
  }

  /** Copies up the units that the range covers only in part. The caller writes the other units completely. */
  async #raiseEdges(offset: number, end: number): Promise<void> {
    const first = alignDown(offset, unit);
    const last = alignDown(end - 1, unit);
    const whole = (start: number): boolean =>
      start >= offset && Math.min(start + unit, this.#image.size) <= end;
    for (const start of new Set([first, last])) if (!whole(start)) await this.#raise(start);
  }

  async #raise(start: number): Promise<void> {
    if (this.#present.has(start / unit)) return;
    const data = Buffer.alloc(Math.min(unit, this.#image.size - start));
    await this.#image.readInto(data, start);
    await this.#writeFile(data, start);
    this.#present.mark(start, data.length);
  }

  *#runs(offset: number, length: number): Generator<{ from: number; end: number; present: boolean }> {
    const end = offset + length;
    for (let at = offset; at < end;) {
      const present = this.#present.has(Math.floor(at / unit));
      let next = Math.min(end, alignUp(at + 1, unit));
      while (next < end && this.#present.has(next / unit) === present) next = Math.min(end, next + unit);
      yield { from: at, end: next, present };
      at = next;
    }
  }

  #punch(offset: number, length: number): boolean {
    try {
      punchHole(this.#file.fd, offset, length);
      return true;
    } catch (error) {
      if (isUnsupported(error)) return false;
      throw error;
    }
  }

  async #readFile(into: Buffer, offset: number): Promise<void> {
    for (let done = 0; done < into.length;) {
      const { bytesRead } = await this.#file.read(into, done, into.length - done, offset + done);
      if (bytesRead === 0) throw new AgentError('FILE_ERROR', 'The overlay file ends too early');
      done += bytesRead;
    }
  }

  async #writeFile(data: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < data.length;) {
      const { bytesWritten } = await this.#file.write(data, done, data.length - done, offset + done);
      done += bytesWritten;
    }
  }
}
