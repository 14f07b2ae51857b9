/**
 * An image file or a block device as a target. Zeros in a file become holes, so an image takes only the space of its
 * data. `flush` is fdatasync, which also reports data that the page cache failed to write.
 *
 * Block devices are opened with O_EXCL. The kernel then refuses devices that are mounted or held, and no other process
 * can mount the device in the meantime. Files are locked with flock, so two agents cannot write one image.
 */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { alignDown, alignUp, MiB } from '../base/bytes.ts';
import { syncDirectory } from '../base/durable.ts';
import { AgentError } from '../base/errors.ts';
import type { Extent } from '../base/extents.ts';
import { punchHole, zeroRange } from '../linux/fallocate.ts';
import { tryLock } from '../linux/flock.ts';
import {
  blockDeviceReadOnly,
  blockDeviceSectors,
  blockDeviceSize,
  discard,
  unmapZeroes,
  zeroOut,
} from '../linux/ioctl.ts';
import { nextData, nextHole } from '../linux/seek.ts';
import type { Target, TargetAbilities } from './target.ts';
import { isUnsupported, statIfExisting, targetFailure, targetOpenFailure } from './write-errors.ts';

export interface FileTargetOptions {
  /** Makes the file, sparse and with this size in bytes, if it does not exist or is empty. */
  readonly create?: { readonly size: number };
  /**
   * Default true. False omits O_EXCL and the lock. Use it to open a target again that this process already holds.
   */
  readonly exclusive?: boolean;
  /** Default false. If true, the caller writes nothing, so the file or device may be read-only. */
  readonly readOnly?: boolean;
}

/**
 * Opens an existing file or block device for writing, or makes a file. Throws DEVICE_BUSY (with the current use),
 * TARGET_READ_ONLY, NO_PERMISSION, TARGET_FULL, FILE_ERROR.
 */
export async function openFileTarget(path: string, options: FileTargetOptions = {}): Promise<FileTarget> {
  const exclusive = options.exclusive ?? true;
  const readOnly = options.readOnly ?? false;
  let handle: FileHandle | undefined;
  try {
    const before = await statIfExisting(path);
    if (before !== undefined && !before.isBlockDevice() && !before.isFile())
      throw new AgentError('FILE_ERROR', `${path} is neither a block device nor a file`);
    const isDevice = before?.isBlockDevice() ?? false;
    handle = await open(
      path,
      openFlags({ isDevice, exclusive, readOnly, create: options.create !== undefined }),
      0o600,
    );
    if (isDevice) {
      const { fd } = handle;
      // On some kernels the open succeeds, and only the first write fails.
      if (!readOnly && blockDeviceReadOnly(fd))
        throw new AgentError('TARGET_READ_ONLY', `${path} is a read-only block device`, {
          hint: `run blockdev --setrw ${path}, if the hardware allows it`,
        });
      return new FileTarget(path, handle, blockDeviceSize(fd), blockDeviceSectors(fd).logical);
    }
    if (exclusive && !tryLock(handle.fd))
      throw new AgentError(
        'DEVICE_BUSY',
        `${path} is being written by another process, which holds its lock`,
      );
    // `flush` makes only the file durable, not its name.
    if (before === undefined && !readOnly) await syncDirectory(dirname(path));
    let { size } = await handle.stat();
    if (size === 0 && options.create !== undefined) {
      size = options.create.size;
      await handle.truncate(size);
    }
    return new FileTarget(path, handle, size, undefined);
  } catch (thrown) {
    await handle?.close();
    throw await targetOpenFailure(path, thrown);
  }
}

function openFlags(how: {
  readonly isDevice: boolean;
  readonly exclusive: boolean;
  readonly readOnly: boolean;
  readonly create: boolean;
}): number {
  const access = how.readOnly ? constants.O_RDONLY : constants.O_RDWR;
  if (how.isDevice) return access | (how.exclusive ? constants.O_EXCL : 0);
  return access | (how.create ? constants.O_CREAT : 0);
}

/** Zeros to write if the filesystem or device has no faster way. */
const zeros = Buffer.alloc(MiB);
/** Most bytes zeroed by one call. A device may be slow, and the target can be destroyed between two calls. */
const longestZeroing = 256 * MiB;

export class FileTarget implements Target {
  readonly name: string;
  readonly size: number;
  readonly readOnly = false;
  readonly abilities: TargetAbilities;
  readonly minimumBlock = 1;
  readonly maximumPayload = 32 * MiB;
  readonly depth = 4;
  readonly #handle: FileHandle;
  /** Sector size of a block device; undefined for a file. */
  readonly #sectorSize: number | undefined;
  readonly #underWay = new Set<Promise<unknown>>();
  #ended: 'no' | 'closed' | 'destroyed' = 'no';
  /** False after the first EOPNOTSUPP; so is `#canZeroRange`. */
  #canPunch = true;
  #canZeroRange = true;

  /** Only `openFileTarget` calls this. The target owns the handle. */
  constructor(name: string, handle: FileHandle, size: number, sectorSize: number | undefined) {
    this.name = name;
    this.size = size;
    this.#handle = handle;
    this.#sectorSize = sectorSize;
    this.abilities = {
      flush: true,
      writeZeroes: true,
      trim: true,
      read: true,
      multiConnection: true,
      zeroMap: sectorSize === undefined,
    };
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#do(offset, data.length, `writing ${data.length} bytes at ${offset}`, () =>
      this.#writeAll(offset, data),
    );
  }

  writeZeroes(offset: number, length: number, options: { hole: boolean }): Promise<void> {
    return this.#do(offset, length, `zeroing ${length} bytes at ${offset}`, () =>
      this.#sectorSize === undefined
        ? this.#zeroFile(offset, length, options.hole)
        : this.#zeroDevice(offset, length, options.hole, this.#sectorSize),
    );
  }

  trim(offset: number, length: number): Promise<void> {
    return this.#do(offset, length, `trimming ${length} bytes at ${offset}`, async () => {
      try {
        if (this.#sectorSize === undefined) {
          if (length > 0) punchHole(this.#handle.fd, offset, length);
          return;
        }
        const start = alignUp(offset, this.#sectorSize);
        const end = alignDown(offset + length, this.#sectorSize);
        if (start < end) await discard(this.#handle.fd, start, end - start);
      } catch (thrown) {
        if (!isUnsupported(thrown)) throw thrown;
      }
    });
  }

  flush(): Promise<void> {
    return this.#do(0, 0, 'flushing it', () => this.#handle.datasync());
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const data = Buffer.allocUnsafeSlow(length);
    await this.#do(offset, length, `reading ${length} bytes at ${offset}`, async () => {
      for (let done = 0; done < length;) {
        const { bytesRead } = await this.#handle.read(data, done, length - done, offset + done);
        if (bytesRead === 0)
          throw new AgentError(
            'TARGET_WRITE_ERROR',
            `${this.name} ends at ${offset + done}, of ${this.size} bytes: another process truncated it`,
          );
        done += bytesRead;
      }
    });
    return data;
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- the interface is asynchronous, lseek is not
  async *zeroExtents(offset: number, length: number): AsyncGenerator<Extent> {
    this.#check(offset, length);
    if (this.#sectorSize !== undefined) return;
    const end = offset + length;
    for (let at = offset; at < end;) {
      const data = Math.min(nextData(this.#handle.fd, at) ?? end, end);
      if (data > at) yield { offset: at, length: data - at };
      if (data >= end) return;
      at = nextHole(this.#handle.fd, data);
    }
  }

  async close(): Promise<void> {
    if (this.#ended !== 'no') return;
    this.#ended = 'closed';
    await Promise.allSettled(this.#underWay);
    await this.#handle.close();
  }

  destroy(): void {
    if (this.#ended !== 'no') return;
    this.#ended = 'destroyed';
    // The kernel cannot cancel a request that it has started. The descriptor is closed when all requests have ended.
    void Promise.allSettled(this.#underWay).then(() => this.#handle.close());
  }

  async #writeAll(offset: number, data: Uint8Array): Promise<void> {
    for (let done = 0; done < data.length;) {
      this.#checkDestroyed();
      const { bytesWritten } = await this.#handle.write(data, done, data.length - done, offset + done);
      done += bytesWritten;
    }
  }

  async #zeroFile(offset: number, length: number, hole: boolean): Promise<void> {
    if (length === 0) return;
    const { fd } = this.#handle;
    if (hole && this.#canPunch)
      try {
        punchHole(fd, offset, length);
        return;
      } catch (thrown) {
        if (!isUnsupported(thrown)) throw thrown;
        this.#canPunch = false;
      }
    if (!hole && this.#canZeroRange)
      try {
        zeroRange(fd, offset, length);
        return;
      } catch (thrown) {
        if (!isUnsupported(thrown)) throw thrown;
        this.#canZeroRange = false;
      }
    await this.#writeZeros(offset, offset + length);
  }

  async #zeroDevice(offset: number, length: number, hole: boolean, sector: number): Promise<void> {
    const end = offset + length;
    const start = Math.min(alignUp(offset, sector), end);
    const stop = Math.max(alignDown(end, sector), start);
    await this.#writeZeros(offset, start);
    for (let at = start; at < stop;) {
      this.#checkDestroyed();
      const piece = Math.min(stop - at, longestZeroing);
      await this.#zeroSectors(at, piece, hole);
      at += piece;
    }
    await this.#writeZeros(stop, end);
  }

  async #zeroSectors(offset: number, length: number, hole: boolean): Promise<void> {
    const { fd } = this.#handle;
    if (hole && this.#canPunch)
      try {
        await unmapZeroes(fd, offset, length);
        return;
      } catch (thrown) {
        if (!isUnsupported(thrown)) throw thrown;
        this.#canPunch = false;
      }
    await zeroOut(fd, offset, length);
  }

  async #writeZeros(start: number, end: number): Promise<void> {
    for (let at = start; at < end; at += zeros.length)
      await this.#writeAll(at, zeros.subarray(0, Math.min(zeros.length, end - at)));
  }

  /** Runs one request: checks its range, counts it until it settles, and turns its error into an error of targets. */
  async #do(offset: number, length: number, what: string, work: () => Promise<void>): Promise<void> {
    this.#check(offset, length);
    const running = work();
    this.#underWay.add(running);
    try {
      await running;
      this.#checkDestroyed();
    } catch (thrown) {
      throw targetFailure(this.name, what, thrown);
    } finally {
      this.#underWay.delete(running);
    }
  }

  #check(offset: number, length: number): void {
    if (this.#ended !== 'no') throw new AgentError('TARGET_WRITE_ERROR', `${this.name} is closed already`);
    if (offset < 0 || length < 0 || offset + length > this.size)
      throw new RangeError(`${length} bytes at ${offset} pass the end of ${this.name} at ${this.size}`);
  }

  #checkDestroyed(): void {
    if (this.#ended === 'destroyed')
      throw new AgentError('TARGET_WRITE_ERROR', `${this.name} was closed while it was being written`);
  }
}
