/** The scratch device: a loop device with a mounted ext4 filesystem that holds some thousand real files. */
import { copyFileSync, globSync, mkdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Cleanup } from './cleanup.ts';
import { background, command, detachLoop, unmount } from './processes.ts';

const MiB = 1024 * 1024;
const deviceSize = 1024 * MiB;
const fileLimit = 4000;
const bytesLimit = 400 * MiB;
/**
 * Larger files are not copied. The Node runtime is larger than all other files, and its checksum would lengthen the
 * freeze.
 */
const sizeLimit = 32 * MiB;

export interface Scratch {
  readonly device: string;
  readonly mountPoint: string;
  readonly files: number;
}

/** Makes the scratch device under `directory` and fills it. Adds its removal to `cleanup`. */
export async function makeScratchDevice(root: string, directory: string, cleanup: Cleanup): Promise<Scratch> {
  const backing = join(directory, 'scratch.img');
  const mountPoint = join(directory, 'scratch');
  writeFileSync(backing, '');
  truncateSync(backing, deviceSize);
  const device = await command('losetup', ['--find', '--show', backing]);
  cleanup.add(`detach ${device}`, () => detachLoop(device, backing));
  await command('mkfs.ext4', ['-q', '-F', '-L', 'quickstart', device]);
  mkdirSync(mountPoint);
  await command('mount', ['-o', 'noatime', device, mountPoint]);
  cleanup.add(`unmount ${mountPoint}`, () => unmount(mountPoint));
  const files = copyRealFiles(root, join(mountPoint, 'files'));
  await command('sync', ['--file-system', mountPoint]);
  return { device, mountPoint, files };
}

/**
 * Copies files of node_modules, which every machine with this project has. The largest come first. Returns their
 * number.
 */
function copyRealFiles(root: string, destination: string): number {
  const files = globSync('node_modules/**', { cwd: root })
    .map((path) => ({ path, stat: statSync(join(root, path), { throwIfNoEntry: false }) }))
    .filter(({ stat }) => stat?.isFile() === true)
    .map(({ path, stat }) => ({ path, size: stat?.size ?? 0 }))
    .sort((a, b) => b.size - a.size)
    .slice(0, fileLimit);
  let bytes = 0;
  let count = 0;
  for (const { path, size } of files) {
    if (size > sizeLimit || bytes + size > bytesLimit) continue;
    const to = join(destination, path);
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(join(root, path), to);
    bytes += size;
    count++;
  }
  return count;
}

/** Starts the program that writes to the device while the backup runs. */
export async function startWriter(scratch: Scratch, log: string, cleanup: Cleanup): Promise<void> {
  const writer = await background(
    process.execPath,
    [join(import.meta.dirname, 'writer.ts'), join(scratch.mountPoint, 'written')],
    log,
  );
  cleanup.add('stop the writer', () => writer.stop());
}
