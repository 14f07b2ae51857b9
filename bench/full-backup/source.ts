/** The devices that are backed up: random bytes, an ext4 filesystem over them, and files of random bytes in it. */
import { createReadStream } from 'node:fs';
import { open, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { MiB } from '../../src/base/bytes.ts';
import { NoiseDevice } from '../noise-device.ts';

export interface BenchSource {
  readonly device: string;
  /** Bytes in use, by statfs. */
  readonly used: number;
  remove(): Promise<void>;
}

/**
 * Makes a device and leaves it unmounted. `fill` is the share of the filesystem's blocks that files take, from 0 to 1.
 */
export async function makeSource(directory: string, size: number, fill: number): Promise<BenchSource> {
  let used = 0;
  const noise = await NoiseDevice.make(directory, size, async (mountPoint) => {
    used = await fillWithFiles(mountPoint, fill);
  });
  await noise.unmount();
  return { device: noise.path, used, remove: () => noise.remove() };
}

async function fillWithFiles(mountPoint: string, fill: number): Promise<number> {
  const before = await statfs(mountPoint);
  const usedOf = (stat: typeof before): number => (stat.blocks - stat.bfree) * stat.bsize;
  const wanted = before.blocks * before.bsize * fill;
  const fileSize = 64 * MiB;
  for (let number = 0; ; number++) {
    const stat = await statfs(mountPoint);
    const missing = Math.min(wanted - usedOf(stat), stat.bavail * stat.bsize - MiB, fileSize);
    if (missing < MiB) return usedOf(stat);
    const file = await open(join(mountPoint, `file-${number}`), 'wx');
    await pipeline(
      createReadStream('/dev/urandom', { end: Math.floor(missing) - 1, highWaterMark: MiB }),
      file.createWriteStream(),
    );
  }
}
