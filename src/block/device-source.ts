/**
 * A block device or image file as a source, opened read-only. It is opened with O_DIRECT if possible, because the page
 * cache of a device may be stale while its filesystem is mounted. The size of a device is read from the kernel when the
 * device is opened, and again if a read fails or returns too few bytes.
 *
 * If O_DIRECT is refused (tmpfs, some network filesystems), a file is read through the page cache.
 *
 * The size of a device may not be a multiple of its sector size (a loop device with 4096-byte sectors, for example).
 * Such a source ends at the last whole sector. No program can read the bytes after it (dd gets EIO), or write them.
 */
import { constants, readSync, type Stats } from 'node:fs';
import { open, stat as statPath, type FileHandle } from 'node:fs/promises';
import { alignDown, alignUp, MiB } from '../base/bytes.ts';
import { AgentError, errnoCode } from '../base/errors.ts';
import { alignedBuffer, defaultAlignment, isAligned } from '../linux/aligned.ts';
import { blockDeviceSectors, blockDeviceSize } from '../linux/ioctl.ts';
import { deviceGone, isReadError, readFailure } from './read-errors.ts';
import type { DirectSource } from './source.ts';

export interface DeviceSourceOptions {
  /** False reads through the page cache. Default true. */
  readonly direct?: boolean;
}

/**
 * Opens a block device or a regular file for reading. Throws DEVICE_NOT_FOUND, NO_PERMISSION, DEVICE_GONE (no
 * medium), FILE_ERROR (neither a block device nor a file).
 */
export async function openDeviceSource(
  path: string,
  options: DeviceSourceOptions = {},
): Promise<DeviceSource> {
  let handle: FileHandle | undefined;
  try {
    // Checked before the open, because the open of a FIFO would wait for ever.
    const kind = await statPath(path);
    if (!kind.isBlockDevice() && !kind.isFile())
      throw new AgentError('FILE_ERROR', `${path} is neither a block device nor a file`);
    const opened = await openReading(path, options.direct ?? true);
    handle = opened.handle;
    const geometry = measure(handle.fd, await handle.stat());
    return new DeviceSource(path, handle, {
      ...geometry,
      alignment: opened.direct ? geometry.directAlignment : 1,
    });
  } catch (thrown) {
    await handle?.close();
    throw openFailure(path, thrown);
  }
}

async function openReading(
  path: string,
  wantsDirect: boolean,
): Promise<{ handle: FileHandle; direct: boolean }> {
  let direct = wantsDirect;
  // Only root and the file's owner may use O_NOATIME. EPERM means that this process is neither.
  let noAccessTime = true;
  for (;;) {
    const flags =
      constants.O_RDONLY | (direct ? constants.O_DIRECT : 0) | (noAccessTime ? constants.O_NOATIME : 0);
    try {
      return { handle: await open(path, flags), direct };
    } catch (thrown) {
      const code = errnoCode(thrown);
      if (code === 'EPERM' && noAccessTime) noAccessTime = false;
      else if (code === 'EINVAL' && direct) direct = false;
      else throw thrown;
    }
  }
}

function openFailure(path: string, cause: unknown): unknown {
  const code = errnoCode(cause);
  if (cause instanceof AgentError || code === undefined) return cause;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new AgentError('DEVICE_NOT_FOUND', `${path} does not exist`, {
        hint: 'dattocli devices lists the block devices of this machine',
        cause,
      });
    case 'EACCES':
    case 'EPERM':
      return new AgentError('NO_PERMISSION', `${path} may not be read (${code})`, {
        hint: 'run as root',
        cause,
      });
    case 'ENXIO':
    case 'ENODEV':
    case 'ENOMEDIUM':
      return deviceGone(path, `opening it gave ${code}`, cause);
    default:
      return new AgentError('FILE_ERROR', `${path} cannot be opened: ${code}`, { cause });
  }
}

interface Measured {
  readonly size: number;
  readonly sectorSize: number;
  readonly isDevice: boolean;
  readonly directAlignment: number;
}

function measure(fd: number, stat: Stats): Measured {
  if (!stat.isBlockDevice())
    // For a file, O_DIRECT needs the sector size of the disk below its filesystem. A page suits every disk.
    return { size: stat.size, sectorSize: 512, isDevice: false, directAlignment: defaultAlignment };
  const sectorSize = blockDeviceSectors(fd).logical;
  const size = alignDown(blockDeviceSize(fd), sectorSize);
  return { size, sectorSize, isDevice: true, directAlignment: sectorSize };
}

/** Most bytes that `readAt` requests from the kernel at once. */
const longestRead = MiB;

export class DeviceSource implements DirectSource {
  readonly name: string;
  readonly size: number;
  readonly sectorSize: number;
  readonly alignment: number;
  /** True for a block device, false for a file. */
  readonly isDevice: boolean;
  readonly #handle: FileHandle;

  /** Only `openDeviceSource` calls this. The source owns the handle. */
  constructor(
    name: string,
    handle: FileHandle,
    geometry: { size: number; sectorSize: number; alignment: number; isDevice: boolean },
  ) {
    this.name = name;
    this.size = geometry.size;
    this.sectorSize = geometry.sectorSize;
    this.alignment = geometry.alignment;
    this.isDevice = geometry.isDevice;
    this.#handle = handle;
  }

  /** True if reads bypass the page cache. */
  get direct(): boolean {
    return this.alignment > 1;
  }

  async readAt(offset: number, length: number): Promise<Uint8Array> {
    this.#checkRange(offset, length);
    const start = alignDown(offset, this.alignment);
    const end = alignUp(offset + length, this.alignment);
    // The bounce buffer is also the result. The returned view excludes the bytes that alignment added.
    const buffer = alignedBuffer(end - start, Math.max(this.alignment, defaultAlignment));
    const stop = Math.min(end, this.size);
    for (let at = start; at < stop;) {
      const wanted = Math.min(end - at, longestRead);
      const got = await this.#handle
        .read(buffer, at - start, wanted, at)
        .catch((thrown: unknown) => this.#fail(at, wanted, thrown));
      at += this.#progress(at, got.bytesRead, stop);
    }
    return buffer.subarray(offset - start, offset - start + length);
  }

  readInto(buffer: Uint8Array, offset: number): void {
    const { alignment } = this;
    this.#checkRange(offset, buffer.length);
    if (offset % alignment !== 0 || !isAligned(buffer, alignment))
      throw new RangeError(`a read of ${this.name} at ${offset} is not aligned to ${alignment}`);
    const tail = buffer.length % alignment;
    if (tail !== 0 && offset + buffer.length !== this.size)
      throw new RangeError(`a read of ${buffer.length} bytes is not a multiple of ${alignment}`);
    this.#fill(buffer, offset, buffer.length - tail);
    if (tail === 0) return;
    const bounce = alignedBuffer(alignment, Math.max(alignment, defaultAlignment));
    this.#fill(bounce, offset + buffer.length - tail, tail);
    buffer.set(bounce.subarray(0, tail), buffer.length - tail);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  /** Reads until `buffer` has `needed` bytes. It must have room up to the next multiple of the alignment. */
  #fill(buffer: Uint8Array, offset: number, needed: number): void {
    for (let done = 0; done < needed;) {
      const at = offset + done;
      const length = alignUp(needed - done, this.alignment);
      let got: number;
      try {
        got = readSync(this.#handle.fd, buffer, done, length, at);
      } catch (thrown) {
        return this.#fail(at, length, thrown);
      }
      done += this.#progress(at, got, offset + needed);
    }
  }

  /** Returns the bytes to count. A direct read may stop at any sector; only an end before `stop` is an error. */
  #progress(at: number, got: number, stop: number): number {
    if (got >= stop - at) return got;
    const whole = alignDown(got, this.alignment);
    if (whole === 0) {
      this.#checkSize();
      throw deviceGone(this.name, `reading at ${at} came to an end, of ${this.size} bytes`);
    }
    return whole;
  }

  #fail(at: number, length: number, thrown: unknown): never {
    const failure = readFailure(this.name, at, length, thrown);
    // A device that was removed may return EIO for a while.
    if (isReadError(failure)) this.#checkSize();
    throw failure;
  }

  #checkSize(): void {
    if (!this.isDevice) return;
    let now: number;
    try {
      now = alignDown(blockDeviceSize(this.#handle.fd), this.sectorSize);
    } catch (thrown) {
      throw deviceGone(this.name, 'its size cannot be asked any more', thrown);
    }
    if (now !== this.size) throw deviceGone(this.name, `it had ${this.size} bytes and now has ${now}`);
  }

  #checkRange(offset: number, length: number): void {
    if (offset < 0 || length < 0 || offset + length > this.size)
      throw new RangeError(
        `reading ${length} bytes at ${offset} passes the end of ${this.name} at ${this.size}`,
      );
  }
}
