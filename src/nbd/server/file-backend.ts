/**
 * An image file as an export. Holes of the export are holes of the file; flush is fdatasync. Reads and writes run on the
 * calling thread: if the page cache answers, that takes half the time of the thread pool (docs/dattosrv.md, "Speed").
 * Operations that may take long (flush, zeros over many megabytes) do not block the thread.
 */
import { fdatasync, readSync, writeSync } from 'node:fs';
import { promisify } from 'node:util';
import { KiB, MiB } from '../../base/bytes.ts';
import { Descriptor } from '../../base/descriptor.ts';
import { errnoCode } from '../../base/errors.ts';
import { willNeed } from '../../linux/advise.ts';
import { allocate, punchHole, zeroRange } from '../../linux/fallocate.ts';
import { nextData, nextHole } from '../../linux/seek.ts';
import { BackendError, type ExportBackend, type StatusExtent, type ZeroOptions } from './backend.ts';

const datasync = promisify(fdatasync);

/** Zeroing runs in steps of this many bytes. Other clients get their turn between the steps. */
const zeroStep = 1024 * MiB;
const zeros = Buffer.alloc(256 * KiB);

export class FileBackend implements ExportBackend {
  readonly size: number;
  readonly readOnly: boolean;
  readonly multiConnection = true;
  readonly fastZero = true;
  readonly #file: Descriptor;
  /** Asynchronous requests in progress. `close` waits for them. */
  readonly #underWay = new Set<Promise<void>>();
  #closing = false;
  /** A range that was data at the last check. It never expires, since a hole may always be reported as data. */
  #dataFrom = 0;
  #dataTo = 0;
  /** The error of a failed fdatasync. The kernel then forgets the lost pages, so no later flush may succeed. */
  #lost: unknown;

  /** Takes over `fd`, a regular file of `size` bytes. */
  constructor(fd: number, size: number, readOnly: boolean) {
    this.#file = new Descriptor(fd, 'the image');
    this.size = size;
    this.readOnly = readOnly;
  }

  read(target: Uint8Array, offset: number): void {
    this.#check();
    for (let done = 0; done < target.length;) {
      const got = readSync(this.#fd, target, done, target.length - done, offset + done);
      if (got === 0)
        throw new BackendError(
          'EIO',
          `the image ends at ${offset + done}, but had ${this.size} bytes when opened`,
        );
      done += got;
    }
  }

  write(data: Uint8Array, offset: number): void {
    this.#check();
    this.#write(data, offset);
  }

  #write(data: Uint8Array, offset: number): void {
    for (let done = 0; done < data.length;)
      done += writeSync(this.#fd, data, done, data.length - done, offset + done);
  }

  zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    return this.#run(() => this.#zero(offset, length, options));
  }

  trim(offset: number, length: number): Promise<void> {
    return this.#run(() => this.#trim(offset, length));
  }

  flush(): Promise<void> {
    return this.#run(() => this.#flush());
  }

  async #zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    for (let done = 0; done < length; done += zeroStep) {
      if (done > 0) await othersTurn();
      const step = Math.min(zeroStep, length - done);
      if (!this.#zeroByFilesystem(offset + done, step, options.hole)) {
        // If the first step is refused, nothing was changed, as the protocol requires for fast zeroes.
        if (options.fast) throw new BackendError('ENOTSUP', 'this filesystem cannot zero quickly');
        await this.#zeroByWriting(offset + done, step);
      }
    }
  }

  async #trim(offset: number, length: number): Promise<void> {
    this.#dataTo = 0;
    for (let done = 0; done < length; done += zeroStep) {
      if (done > 0) await othersTurn();
      const step = Math.min(zeroStep, length - done);
      if (!supported(() => punchHole(this.#fd, offset + done, step))) return;
    }
  }

  async #flush(): Promise<void> {
    if (this.#lost !== undefined)
      throw new BackendError('EIO', 'an earlier flush failed, so writes may be lost', { cause: this.#lost });
    try {
      await datasync(this.#fd);
    } catch (error) {
      this.#lost = error;
      throw error;
    }
  }

  cache(offset: number, length: number): void {
    this.#check();
    willNeed(this.#fd, offset, length);
  }

  run(offset: number, length: number): StatusExtent {
    this.#check();
    if (offset < this.#dataFrom || offset >= this.#dataTo) {
      const data = nextData(this.#fd, offset) ?? this.size;
      if (data > offset) return { length: Math.min(data - offset, length), hole: true, zero: true };
      const hole = nextHole(this.#fd, offset);
      // Another thread punched a hole in between. Data is still a correct answer.
      if (hole <= offset) return { length, hole: false, zero: false };
      this.#dataFrom = offset;
      this.#dataTo = hole;
    }
    return { length: Math.min(this.#dataTo - offset, length), hole: false, zero: false };
  }

  status(offset: number, length: number, limit: number): StatusExtent[] {
    this.#check();
    const runs: StatusExtent[] = [];
    const end = offset + length;
    for (let at = offset; at < end && runs.length < limit;) {
      // Not from the range of `run`: there may be new holes since.
      const data = Math.min(nextData(this.#fd, at) ?? end, end);
      if (data > at) runs.push({ length: data - at, hole: true, zero: true });
      at = data;
      if (at >= end || runs.length >= limit) break;
      const hole = Math.min(nextHole(this.#fd, at), end);
      // Another thread punched a hole in between: check again.
      if (hole <= at) continue;
      runs.push({ length: hole - at, hole: false, zero: false });
      at = hole;
    }
    return runs;
  }

  /** Refuses further requests at once, and closes the image after the requests in progress. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.allSettled(this.#underWay);
    this.#file.close();
  }

  /** The descriptor. Use it only for one call within an accepted request. */
  get #fd(): number {
    return this.#file.fd;
  }

  async #run(work: () => Promise<void>): Promise<void> {
    this.#check();
    const running = work();
    this.#underWay.add(running);
    try {
      await running;
    } finally {
      this.#underWay.delete(running);
    }
  }

  #check(): void {
    if (this.#closing) throw new BackendError('EIO', 'the image is already closed');
  }

  /** Zeroes with an operation of the filesystem. Returns false if it has none. */
  #zeroByFilesystem(offset: number, length: number, hole: boolean): boolean {
    this.#dataTo = 0;
    if (hole && supported(() => punchHole(this.#fd, offset, length))) return true;
    if (supported(() => zeroRange(this.#fd, offset, length))) return true;
    // tmpfs has holes and preallocation, but no zero range.
    return supported(() => {
      punchHole(this.#fd, offset, length);
      allocate(this.#fd, offset, length);
    });
  }

  async #zeroByWriting(offset: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += zeros.length) {
      if (done % (16 * MiB) === 0) await othersTurn();
      this.#write(zeros.subarray(0, Math.min(zeros.length, length - done)), offset + done);
    }
  }
}

/** Runs a filesystem operation. Returns false if the filesystem does not support it. */
function supported(call: () => void): boolean {
  try {
    call();
    return true;
  } catch (error) {
    if (errnoCode(error) === 'EOPNOTSUPP') return false;
    throw error;
  }
}

function othersTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
