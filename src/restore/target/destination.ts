/**
 * The destination of a restore, as the restore threads use it. A device or file is accessed with O_DIRECT if possible, so
 * that reading back reads the disk and not our own page cache. An NBD export is accessed through the NBD client.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { alignDown } from '../../base/bytes.ts';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { isUnsupported, targetFailure } from '../../block/write-errors.ts';
import { defaultAlignment } from '../../linux/aligned.ts';
import { punchHole } from '../../linux/fallocate.ts';
import { blockDeviceSize, unmapZeroes } from '../../linux/ioctl.ts';
import { connectNbd } from '../../nbd/client/connect.ts';
import type { NbdTarget } from '../../nbd/client/target.ts';
import type { NbdAddress } from '../../nbd/client/uri.ts';

/** The description of a destination, as plain data for threads. */
export type DestinationSpec =
  | { readonly kind: 'local'; readonly path: string; readonly isDevice: boolean; readonly sectorSize: number }
  | { readonly kind: 'nbd'; readonly address: NbdAddress };

export interface Destination {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** `read` returns the present contents. */
  readonly readable: boolean;
  /** Offsets and lengths of `write` and `read` are multiples of this, except at the end. Buffers are page-aligned. */
  readonly alignment: number;
  read(into: Buffer, offset: number): Promise<void>;
  write(data: Buffer, offset: number): Promise<void>;
  /**
   * Makes the range read as zeros quickly and frees its space, with a function of the destination. Returns false, without
   * any change, if the destination has no such function.
   */
  zeroQuickly(offset: number, length: number): Promise<boolean>;
  /** Makes all written data durable, also that of other connections. */
  flush(): Promise<void>;
  close(): Promise<void>;
  destroy(): void;
}

/** Opens a destination again that this process has checked and holds. */
export function openDestination(spec: DestinationSpec, signal?: AbortSignal): Promise<Destination> {
  return spec.kind === 'nbd' ? NbdDestination.open(spec.address, signal) : LocalDestination.open(spec);
}

type LocalSpec = Extract<DestinationSpec, { kind: 'local' }>;

class LocalDestination implements Destination {
  readonly name: string;
  readonly size: number;
  readonly readable = true;
  readonly alignment: number;
  readonly #plain: FileHandle;
  /** Undefined if the filesystem refuses O_DIRECT. */
  readonly #direct: FileHandle | undefined;
  readonly #isDevice: boolean;

  private constructor(spec: LocalSpec, size: number, plain: FileHandle, direct: FileHandle | undefined) {
    this.name = spec.path;
    this.size = size;
    this.alignment = spec.isDevice ? Math.max(spec.sectorSize, 512) : defaultAlignment;
    this.#plain = plain;
    this.#direct = direct;
    this.#isDevice = spec.isDevice;
  }

  static async open(spec: LocalSpec): Promise<LocalDestination> {
    let plain: FileHandle | undefined;
    try {
      plain = await open(spec.path, constants.O_RDWR);
      const size = spec.isDevice ? blockDeviceSize(plain.fd) : (await plain.stat()).size;
      const direct = await open(spec.path, constants.O_RDWR | constants.O_DIRECT).catch((error: unknown) => {
        // tmpfs before Linux 6.6 and some network filesystems refuse O_DIRECT.
        if (errnoCode(error) === 'EINVAL') return undefined;
        throw error;
      });
      return new LocalDestination(spec, size, plain, direct);
    } catch (error) {
      await plain?.close();
      throw targetFailure(spec.path, 'opening it', error);
    }
  }

  read(into: Buffer, offset: number): Promise<void> {
    return this.#through(into, offset, 'reading', async (handle, piece, at) => {
      const { bytesRead } = await handle.read(piece, 0, piece.length, at);
      return bytesRead;
    });
  }

  write(data: Buffer, offset: number): Promise<void> {
    return this.#through(data, offset, 'writing', async (handle, piece, at) => {
      const { bytesWritten } = await handle.write(piece, 0, piece.length, at);
      return bytesWritten;
    });
  }

  async zeroQuickly(offset: number, length: number): Promise<boolean> {
    const { fd } = this.#plain;
    try {
      if (this.#isDevice) await unmapZeroes(fd, offset, length);
      else punchHole(fd, offset, length);
      return true;
    } catch (error) {
      if (isUnsupported(error) || errnoCode(error) === 'EINVAL') return false;
      throw targetFailure(this.name, `zeroing ${length} bytes at ${offset}`, error);
    }
  }

  async flush(): Promise<void> {
    try {
      await this.#plain.datasync();
    } catch (error) {
      throw targetFailure(this.name, 'flushing it', error);
    }
  }

  async close(): Promise<void> {
    await this.#direct?.close();
    await this.#plain.close();
  }

  /** Closes in the background: requests that the kernel has begun cannot be cancelled. */
  destroy(): void {
    void this.close().catch(() => undefined);
  }

  /** Moves the aligned part with O_DIRECT. The rest, the end of a file of odd size, goes through the page cache. */
  async #through(
    data: Buffer,
    offset: number,
    what: string,
    move: (handle: FileHandle, piece: Buffer, at: number) => Promise<number>,
  ): Promise<void> {
    const whole = this.#direct === undefined ? 0 : alignDown(data.length, this.alignment);
    for (let done = 0; done < data.length;) {
      const at = offset + done;
      let moved;
      try {
        moved =
          done < whole && this.#direct !== undefined
            ? await move(this.#direct, data.subarray(done, whole), at)
            : await move(this.#plain, data.subarray(done), at);
      } catch (error) {
        throw targetFailure(this.name, `${what} ${data.length - done} bytes at ${at}`, error);
      }
      if (moved === 0)
        throw new AgentError(
          'TARGET_WRITE_ERROR',
          `${this.name} ends at byte ${at}, but had ${this.size} bytes: another process truncated it`,
        );
      done += moved;
    }
  }
}

class NbdDestination implements Destination {
  readonly name: string;
  readonly size: number;
  readonly readable = true;
  readonly alignment: number;
  readonly #target: NbdTarget;

  private constructor(target: NbdTarget) {
    this.name = target.name;
    this.size = target.size;
    this.alignment = Math.max(target.minimumBlock, target.preferredBlock, 512);
    this.#target = target;
  }

  static async open(address: NbdAddress, signal?: AbortSignal): Promise<NbdDestination> {
    return new NbdDestination(await connectNbd(address, { signal }));
  }

  async read(into: Buffer, offset: number): Promise<void> {
    for (const [at, end] of this.#pieces(into.length))
      await this.#target.readInto(offset + at, into.subarray(at, end));
  }

  async write(data: Buffer, offset: number): Promise<void> {
    for (const [at, end] of this.#pieces(data.length))
      await this.#target.write(offset + at, data.subarray(at, end));
  }

  async zeroQuickly(offset: number, length: number): Promise<boolean> {
    if (!this.#target.abilities.writeZeroes) return false;
    try {
      await this.#target.writeZeroes(offset, length, { hole: true, fast: this.#target.fastZero });
      return true;
    } catch (error) {
      if (error instanceof AgentError && error.code === 'NOT_SUPPORTED') return false;
      throw error;
    }
  }

  flush(): Promise<void> {
    return this.#target.flush();
  }

  close(): Promise<void> {
    return this.#target.close();
  }

  destroy(): void {
    this.#target.destroy();
  }

  *#pieces(length: number): Generator<[number, number]> {
    const most = this.#target.maximumPayload;
    for (let at = 0; at < length; at += most) yield [at, Math.min(length, at + most)];
  }
}
