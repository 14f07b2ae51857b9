/**
 * The device of a benchmark: a loop device with ext4. All its bytes are random before the filesystem is made. So its
 * free space is garbage, which only a tool that knows the filesystem can leave out.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { MiB } from '../src/base/bytes.ts';
import { attachLoop, detachLoop, makeFilesystem, mountDevice, unmount } from '../test/helpers/loop.ts';

const mkfsArgs = ['-m', '0', '-E', 'nodiscard,lazy_itable_init=0,lazy_journal_init=0'];

export class NoiseDevice {
  readonly path: string;
  readonly mountPoint: string;
  readonly #image: string;
  #mounted = false;

  private constructor(path: string, mountPoint: string, image: string) {
    this.path = path;
    this.mountPoint = mountPoint;
    this.#image = image;
  }

  /**
   * Makes the device and mounts it, then calls `fill` to write files into it. The device stays mounted. `size` is in
   * bytes. Removes everything it made if it fails.
   */
  static async make(
    directory: string,
    size: number,
    fill: (mountPoint: string) => Promise<void>,
  ): Promise<NoiseDevice> {
    const image = join(directory, 'source.img');
    try {
      await pipeline(
        createReadStream('/dev/urandom', { end: size - 1, highWaterMark: MiB }),
        createWriteStream(image),
      );
      const made = new NoiseDevice(await attachLoop(image), join(directory, 'source'), image);
      try {
        await makeFilesystem(made.path, 'ext4', mkfsArgs);
        await made.mount();
        await fill(made.mountPoint);
        return made;
      } catch (error) {
        await made.remove();
        throw error;
      }
    } catch (error) {
      await rm(image, { force: true });
      throw error;
    }
  }

  async mount(): Promise<void> {
    await mountDevice(this.path, this.mountPoint);
    this.#mounted = true;
  }

  async unmount(): Promise<void> {
    await unmount(this.mountPoint);
    this.#mounted = false;
  }

  async remove(): Promise<void> {
    if (this.#mounted) await this.unmount();
    await detachLoop(this.path);
    await rm(this.#image, { force: true });
  }
}
