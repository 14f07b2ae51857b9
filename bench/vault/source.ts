/**
 * The device that is backed up: random bytes, an ext4 filesystem over them, and files in it. Half of the files are as
 * compressible as programs are: copies of the runtime, each with some bytes of its own. The other half is random.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, readdir, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { exec } from '../../test/helpers/exec.ts';
import { unmount } from '../../test/helpers/loop.ts';
import { NoiseDevice } from '../noise-device.ts';

export interface VaultSource {
  readonly device: string;
  /** Bytes in use. */
  readonly used: number;
  /**
   * Overwrites pieces of `piece` bytes at random places of the files, until `share` of the device was written. Then
   * syncs the filesystem.
   */
  change(share: number, piece: number): Promise<void>;
  /** Runs `work` while the filesystem is not mounted. */
  unmounted<T>(work: () => Promise<T>): Promise<T>;
  /** Compares the files of a restored image with those of the device. */
  compare(image: string): Promise<void>;
  remove(): Promise<void>;
}

const fileSize = 16 * MiB;

/** Makes a device. Its filesystem is mounted and synced when the function returns. */
export async function makeSource(directory: string, size: number, fill: number): Promise<VaultSource> {
  let used = 0;
  const noise = await NoiseDevice.make(directory, size, async (mountPoint) => {
    used = await fillWithFiles(mountPoint, fill);
    // Syncs before any backup is timed. The backups that read the device unmounted would not pay for it.
    await exec('sync', ['-f', mountPoint]);
  });
  const { mountPoint } = noise;
  return {
    device: noise.path,
    used,
    change: async (share, piece) => {
      const names = await readdir(join(mountPoint, 'files'));
      for (let left = size * share; left > 0; left -= piece) {
        const name = names[Math.floor(Math.random() * names.length)]!;
        const at = Math.floor(Math.random() * ((fileSize - piece) / (4 * KiB) + 1)) * 4 * KiB;
        const file = await open(join(mountPoint, 'files', name), 'r+');
        await file.write(randomBytes(piece), 0, piece, at);
        await file.close();
      }
      await exec('sync', ['-f', mountPoint]);
    },
    unmounted: async (work) => {
      await noise.unmount();
      try {
        return await work();
      } finally {
        await noise.mount();
      }
    },
    compare: async (restored) => {
      const at = join(directory, 'compared');
      await mkdir(at, { recursive: true });
      await exec('mount', ['-o', 'loop,ro,noload', restored, at]);
      try {
        await exec('diff', ['-r', join(mountPoint, 'files'), join(at, 'files')], { timeoutMs: 600_000 });
      } finally {
        await unmount(at);
      }
    },
    remove: () => noise.remove(),
  };
}

async function fillWithFiles(mountPoint: string, fill: number): Promise<number> {
  const program = (await readFile(process.execPath)).subarray(0, fileSize);
  await mkdir(join(mountPoint, 'files'));
  const before = await statfs(mountPoint);
  for (let number = 0; ; number++) {
    const stat = await statfs(mountPoint);
    const used = (stat.blocks - stat.bfree) * stat.bsize;
    if (used >= before.blocks * before.bsize * fill - fileSize) return used;
    const bytes = number % 2 === 0 ? randomBytes(fileSize) : Buffer.from(program);
    // No two files have the same content, so that no tool gains by deduplication.
    if (number % 2 === 1)
      for (let at = 0; at < fileSize; at += 8 * KiB) bytes.writeUInt32LE(number * 65536 + at, at);
    await writeFile(join(mountPoint, 'files', `file-${number}`), bytes);
  }
}
