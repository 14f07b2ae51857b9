/**
 * The devices that are backed up: a loop device whose every byte is random before an ext4 filesystem is made on
 * it, so that its free space is garbage that only a filesystem-aware tool can leave out; then filled with files
 * of random bytes.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { MiB } from '../../src/base/bytes.ts';
import { exec } from '../../test/helpers/exec.ts';
import { attachLoop, detachLoop, mountDevice, unmount } from '../../test/helpers/loop.ts';

export interface BenchSource {
  readonly device: string;
  /** Bytes in use, by statfs. */
  readonly used: number;
  remove(): Promise<void>;
}

/** `fill`: the share of the filesystem's blocks that files take, 0 to 1. Leaves the filesystem unmounted. */
export async function makeSource(directory: string, size: number, fill: number): Promise<BenchSource> {
  const image = join(directory, `source-${Math.round(fill * 100)}`);
  await pipeline(
    createReadStream('/dev/urandom', { end: size - 1, highWaterMark: MiB }),
    createWriteStream(image),
  );
  const device = await attachLoop(image);
  const mountPoint = join(directory, 'source');
  try {
    await exec('mkfs.ext4', [
      '-q',
      '-F',
      '-m',
      '0',
      '-E',
      'nodiscard,lazy_itable_init=0,lazy_journal_init=0',
      device,
    ]);
    await mkdir(mountPoint, { recursive: true });
    await mountDevice(device, mountPoint);
    const used = await fillWithFiles(mountPoint, fill);
    await unmount(mountPoint);
    return { device, used, remove: () => detachLoop(device) };
  } catch (error) {
    await unmount(mountPoint).catch(() => undefined);
    await detachLoop(device);
    throw error;
  }
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
