/**
 * Reads a device of a recovery point. Ranges that are not in the map read as zeros. Sequential reads are read ahead.
 * All returned data has been verified against its name.
 */
import { AgentError } from '../base/errors.ts';
import type { Extent } from '../base/extents.ts';
import type { ChunkIndex } from './index/chunk-index.ts';
import { isDataLossError } from './data-loss.ts';
import { ImageMap } from './maps/image-map.ts';
import { type Name, isZeroName, nameLength } from './names.ts';
import { PartReader, type PartReaderOptions } from './packs/part-reader.ts';
import type { VaultCore } from './packs/vault-core.ts';

/** The part of a point's device that reading needs; a `PointDevice` has all of it. */
export interface ImageSource {
  /** For messages. */
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  /** Hexadecimal. */
  readonly root: string;
  readonly levels: number;
}

export interface PointImageOptions {
  /** How far to read ahead of sequential reads, in bytes. Default: 8 MiB; 0 disables it. */
  readonly runAhead?: number;
}

export interface ImageData {
  readonly offset: number;
  /** Read-only for the caller. */
  readonly data: Buffer;
}

export class PointImage {
  readonly name: string;
  readonly size: number;
  readonly map: ImageMap;
  readonly #reader: PartReader;
  readonly #chunkSize: number;
  readonly #runAhead: number;
  /** The end of the last read, the number of sequential reads, and the end of the read-ahead. */
  #last = 0;
  #streak = 0;
  #ahead = 0;

  /** Several images may share the reader. Throws VAULT_DAMAGED if the levels do not fit the size. */
  constructor(
    reader: PartReader,
    source: ImageSource,
    chunkSize: number,
    { runAhead = 8 * 1024 * 1024 }: PointImageOptions = {},
  ) {
    const { path, size, root, levels } = source;
    this.name = path;
    this.size = size;
    this.map = new ImageMap(reader, { root: Buffer.from(root, 'hex'), levels, size, chunkSize });
    this.#reader = reader;
    this.#chunkSize = chunkSize;
    this.#runAhead = runAhead;
  }

  static open(
    vault: VaultCore,
    index: ChunkIndex,
    source: ImageSource,
    options: PointImageOptions & PartReaderOptions = {},
  ): PointImage {
    return new PointImage(new PartReader(vault, index, options), source, vault.chunkSize, options);
  }

  /**
   * Reads exactly `length` bytes at any alignment. The caller owns the result. Throws RangeError past the end.
   * VAULT_CHUNK_LOST and VAULT_DAMAGED name the device and the range.
   */
  async read(offset: number, length: number): Promise<Buffer> {
    const into = Buffer.alloc(length);
    await this.readInto(into, offset);
    return into;
  }

  /** Like `read`, into a buffer that holds zeros. */
  async readInto(into: Buffer, offset: number): Promise<void> {
    const end = offset + into.length;
    if (offset < 0 || end > this.size)
      throw new RangeError(`${this.name}: ${into.length} bytes at ${offset} of ${this.size}`);
    this.#follow(offset, end);
    const first = Math.floor(offset / this.#chunkSize);
    const count = Math.ceil(end / this.#chunkSize) - first;
    const names = await this.#names(first, count);
    const reads: Promise<void>[] = [];
    for (let at = 0; at < count; at++) {
      const name = names.subarray(at * nameLength, (at + 1) * nameLength);
      if (isZeroName(name)) continue;
      const start = (first + at) * this.#chunkSize;
      reads.push(
        this.#chunk(name, start).then((chunk) => {
          chunk.copy(into, Math.max(0, start - offset), Math.max(0, offset - start), end - start);
        }),
      );
    }
    await Promise.all(reads);
  }

  /** Yields the ranges that hold data, in order. All other ranges read as zeros. */
  extents(): AsyncGenerator<Extent> {
    return this.map.extents();
  }

  /**
   * Yields the data of `[from, to)` chunk by chunk in order, without zero chunks. Both bounds are multiples of the
   * chunk size, or the end. Chunks are read ahead.
   */
  async *data(from = 0, to = this.size): AsyncGenerator<ImageData> {
    const range = {
      firstChunk: Math.floor(from / this.#chunkSize),
      count: Math.ceil((to - from) / this.#chunkSize),
    };
    const ahead = Math.max(1, Math.floor(this.#runAhead / this.#chunkSize));
    for await (const { firstChunk, names } of this.map.leaves(range)) {
      const entries: { name: Name; offset: number }[] = [];
      for (let at = 0; at < names.length; at += nameLength) {
        const name = names.subarray(at, at + nameLength);
        if (!isZeroName(name))
          entries.push({ name, offset: (firstChunk + at / nameLength) * this.#chunkSize });
      }
      for (const [at, { name, offset }] of entries.entries()) {
        if (at % (ahead / 2) < 1)
          this.#reader.prefetch(entries.slice(at, at + ahead).map((entry) => entry.name));
        const chunk = await this.#chunk(name, offset);
        yield { offset, data: chunk.subarray(0, Math.min(chunk.length, this.size - offset)) };
      }
    }
  }

  async #names(first: number, count: number): Promise<Buffer> {
    try {
      return await this.map.names(first, count);
    } catch (error) {
      throw this.#located(error, first * this.#chunkSize, count * this.#chunkSize);
    }
  }

  async #chunk(name: Name, offset: number): Promise<Buffer> {
    let chunk;
    try {
      chunk = await this.#reader.get(name);
    } catch (error) {
      throw this.#located(error, offset, this.#chunkSize);
    }
    if (chunk.length !== this.#chunkSize)
      throw new AgentError(
        'VAULT_DAMAGED',
        `${this.name}: the chunk at ${offset} has ${chunk.length} bytes; chunks of the vault have ${this.#chunkSize}`,
      );
    return chunk;
  }

  #located(error: unknown, offset: number, length: number): unknown {
    if (!isDataLossError(error)) return error;
    const end = Math.min(this.size, offset + length);
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    return new AgentError(error.code, `${this.name}, bytes ${offset} to ${end}: ${error.message}`, {
      ...hint,
      cause: error,
    });
  }

  /** Detects sequential reads and starts to read ahead. Several reads may run at once, slightly out of order. */
  #follow(offset: number, end: number): void {
    const near = Math.max(this.#runAhead / 2, end - offset);
    if (Math.abs(offset - this.#last) <= near) this.#streak++;
    else {
      this.#streak = 0;
      this.#ahead = 0;
    }
    this.#last = end;
    if (this.#streak < 2 || this.#runAhead === 0 || this.#ahead - end > this.#runAhead / 2) return;
    const from = Math.max(this.#ahead, end);
    const to = Math.min(this.size, end + this.#runAhead);
    if (from >= to) return;
    this.#ahead = to;
    this.#runAheadTo(from, to).catch(() => undefined);
  }

  async #runAheadTo(from: number, to: number): Promise<void> {
    const first = Math.floor(from / this.#chunkSize);
    const names = await this.map.names(first, Math.ceil(to / this.#chunkSize) - first);
    const wanted: Name[] = [];
    for (let at = 0; at < names.length; at += nameLength) {
      const name = names.subarray(at, at + nameLength);
      if (!isZeroName(name)) wanted.push(name);
    }
    this.#reader.prefetch(wanted);
  }
}
