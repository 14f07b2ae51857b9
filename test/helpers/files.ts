/**
 * Fills a directory with files of every kind that matters to an image: small, large, sparse, zeros, links.
 */
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../../src/base/bytes.ts';
import { type LoopDisk, mountDevice, unmount } from './loop.ts';

/** Writes about `bytes` bytes of random data, and some zeros and holes. */
export async function fillWithFiles(directory: string, bytes: number): Promise<void> {
  const small = randomBytes(64 * 1024);
  let written = 0;
  for (let number = 0; written < bytes / 4; number++) {
    const folder = join(directory, `folder ${number % 7}`, `n${number % 3}`);
    await mkdir(folder, { recursive: true });
    const length = (number * 7919) % small.length;
    await writeFile(join(folder, `file-${number}`), small.subarray(0, length));
    written += length;
  }
  for (let part = 0; part < 3; part++)
    await writeFile(join(directory, `large-${part}`), randomBytes(Math.floor(bytes / 4)));
  await writeFile(join(directory, 'zeros'), Buffer.alloc(4 * MiB));
  const sparse = await open(join(directory, 'sparse'), 'w');
  await sparse.truncate(16 * MiB);
  await sparse.write(small, 0, 4096, 5 * MiB);
  await sparse.close();
  await symlink('large-0', join(directory, 'symlink'));
  await link(join(directory, 'large-1'), join(directory, 'hard link'));
}

/** Like `fillWithFiles`, on a device that is mounted only for that time. */
export async function fillDevice(disk: LoopDisk, bytes: number): Promise<void> {
  const mountPoint = join(disk.directory, 'filling');
  await mountDevice(disk.device, mountPoint);
  try {
    await fillWithFiles(mountPoint, bytes);
  } finally {
    await unmount(mountPoint);
  }
}
