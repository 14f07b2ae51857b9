/** The scratch device: a loop device with a mounted ext4 filesystem that holds some thousand real files. */
import { cpSync, globSync, mkdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Cleanup } from './cleanup.ts';
import { background, command, unmount } from './processes.ts';

const MiB = 1024 * 1024;
const deviceSize = 1024 * MiB;
const fileLimit = 4000;
const bytesLimit = 160 * MiB;

export interface Scratch {
  readonly device: string;
  readonly mountPoint: string;
  readonly files: number;
}

/** Makes and fills it under `directory`; `cleanup` learns how to remove it. */
export async function makeScratchDevice(root: string, directory: string, cleanup: Cleanup): Promise<Scratch> {
  const backing = join(directory, 'scratch.img');
  const mountPoint = join(directory, 'scratch');
  writeFileSync(backing, '');
  truncateSync(backing, deviceSize);
  const device = await command('losetup', ['--find', '--show', backing]);
  cleanup.add(`detach ${device}`, () => command('losetup', ['--detach', device]));
  await command('mkfs.ext4', ['-q', '-F', '-L', 'quickstart', device]);
  mkdirSync(mountPoint);
  await command('mount', ['-o', 'noatime', device, mountPoint]);
  cleanup.add(`unmount ${mountPoint}`, () => unmount(mountPoint));
  const files = copyRealFiles(root, join(mountPoint, 'files'));
  await command('sync', ['--file-system', mountPoint]);
  return { device, mountPoint, files };
}

/** Files that every machine with this project has: its packages', as many as fit. Returns their number. */
function copyRealFiles(root: string, destination: string): number {
  let count = 0;
  let bytes = 0;
  const made = new Set<string>();
  for (const path of globSync('{node_modules,src,docs,scripts}/**', { cwd: root }).sort()) {
    const { size, isFile } = describe(join(root, path));
    // The runtime and the compilers are larger than all else together.
    if (!isFile || size > 4 * MiB || bytes + size > bytesLimit) continue;
    if (count >= fileLimit) break;
    const to = join(destination, path);
    if (!made.has(dirname(to))) mkdirSync(dirname(to), { recursive: true });
    made.add(dirname(to));
    cpSync(join(root, path), to);
    count++;
    bytes += size;
  }
  return count;
}

function describe(path: string): { size: number; isFile: boolean } {
  const stat = statSync(path, { throwIfNoEntry: false });
  return { size: stat?.size ?? 0, isFile: stat?.isFile() ?? false };
}

/** Starts the writer that goes on while the backup runs. */
export async function startWriter(scratch: Scratch, log: string, cleanup: Cleanup): Promise<void> {
  const writer = await background(
    process.execPath,
    [join(import.meta.dirname, 'writer.ts'), join(scratch.mountPoint, 'written')],
    log,
  );
  cleanup.add('stop the writer', () => writer.stop());
}
