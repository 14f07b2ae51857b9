/**
 * Scratch block devices: an image file, a loop device over it, a filesystem, a mount. Everything is removed
 * at the end of the test in reverse order (see cleanup.ts). Needs root.
 *
 *     const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
 *     await writeFile(join(disk.mountPoint!, 'a'), 'b');
 */
import { mkdir, mkdtemp, open, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { atEnd, type EndingTest } from './cleanup.ts';
import { exec } from './exec.ts';

export interface LoopOptions {
  /** Bytes of the (sparse) image file. */
  readonly size: number;
  /** The type for `mkfs.TYPE`; undefined makes no filesystem. `swap` is made by mkswap. */
  readonly filesystem?: string;
  readonly mkfsArgs?: readonly string[];
  /** True mounts the device on a new directory; a string is the directory's name (may hold spaces). */
  readonly mount?: boolean | string;
  readonly mountOptions?: string;
  /**
   * sfdisk's input (needs the fdisk package). The device is then partitioned, and `partition(n)` returns the
   * path of a partition.
   */
  readonly partitions?: string;
  /** Directory of the image file. Default: a new directory under os.tmpdir(). */
  readonly directory?: string;
  readonly readOnly?: boolean;
  /** Logical sector size of the loop device: 512 (default) to 4096. */
  readonly sectorSize?: number;
  /** False leaves the image without a loop device. Default true. */
  readonly attach?: boolean;
}

export interface LoopDisk {
  readonly image: string;
  /** `/dev/loopN`; empty if `attach` was false. */
  readonly device: string;
  /** The mount point, if `mount` was given. */
  readonly mountPoint: string | undefined;
  /** Holds the image and the mount point. */
  readonly directory: string;
  partition(number: number): string;
  /** Removes everything at once, before the test's end. */
  remove(): Promise<void>;
}

export async function makeLoop(t: EndingTest, options: LoopOptions): Promise<LoopDisk> {
  const undo: (() => Promise<void>)[] = [];
  const remove = async (): Promise<void> => {
    // A failure does not prevent the other removals: if a loop device is stuck, its directory is still
    // removed.
    const failures: unknown[] = [];
    for (let next = undo.pop(); next !== undefined; next = undo.pop())
      await next().catch((thrown: unknown) => failures.push(thrown));
    if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join('\n'));
  };
  atEnd(t, remove);

  const directory = await mkdtemp(join(options.directory ?? tmpdir(), 'dattod-loop-'));
  undo.push(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
  const image = join(directory, 'image');
  const file = await open(image, 'wx');
  await file.truncate(options.size);
  await file.close();

  let device = '';
  if (options.attach !== false) {
    device = await attachLoop(image, options);
    undo.push(() => detachLoop(device));
  }
  const surface = device === '' ? image : device;
  if (options.partitions !== undefined) {
    await exec('sfdisk', ['--quiet', '--no-tell-kernel', surface], { input: options.partitions });
    if (device !== '') await exec('partx', ['--update', device]);
  }
  if (options.filesystem !== undefined) await makeFilesystem(surface, options.filesystem, options.mkfsArgs);

  let mountPoint: string | undefined;
  if (options.mount !== undefined && options.mount !== false) {
    mountPoint = join(directory, options.mount === true ? 'mnt' : options.mount);
    await mountDevice(device, mountPoint, options.mountOptions);
    const mounted = mountPoint;
    undo.push(() => unmount(mounted));
  }
  return { image, device, mountPoint, directory, partition: (number) => `${device}p${number}`, remove };
}

/** Attaches a loop device to a file. The caller detaches it. */
export async function attachLoop(
  image: string,
  options: Pick<LoopOptions, 'partitions' | 'readOnly' | 'sectorSize'> = {},
): Promise<string> {
  const args = ['--find', '--show'];
  if (options.partitions !== undefined) args.push('--partscan');
  if (options.readOnly === true) args.push('--read-only');
  if (options.sectorSize !== undefined) args.push('--sector-size', String(options.sectorSize));
  for (let attempt = 0; ; attempt++)
    try {
      return (await exec('losetup', [...args, image])).stdout.trim();
    } catch (thrown) {
      // Two tests may try to use the same free number.
      if (attempt === 5) throw thrown;
    }
}

/**
 * Detaches a loop device and attaches the image to the same number again. Another test may take the number in between; this
 * waits until that test has given it back.
 */
export async function reattachLoop(device: string, image: string): Promise<void> {
  await detachLoop(device);
  await untilFree(device, async () => (await exec('losetup', [device, image], { allow: [1] })).code === 0);
}

/**
 * Detaches, and waits until the device has released its file. The kernel does so when the last user closes
 * the device.
 */
export async function detachLoop(device: string): Promise<void> {
  const backing = `/sys/block/${device.replace('/dev/', '')}/loop/backing_file`;
  const read = (): Promise<string | undefined> => readFile(backing, 'utf8').catch(() => undefined);
  const ours = await read();
  if (ours === undefined) return;
  // Only once: another test may use the number as soon as it is free.
  await exec('losetup', ['--detach', device], { allow: [1] });
  await untilFree(device, async () => (await read()) !== ours);
}

/** Runs `mkfs.TYPE` quietly, over any existing content. */
export async function makeFilesystem(
  device: string,
  type: string,
  args: readonly string[] = [],
): Promise<void> {
  if (type === 'swap') await exec('mkswap', ['--quiet', ...args, device]);
  else if (type.startsWith('ext')) await exec(`mkfs.${type}`, ['-q', '-F', ...args, device]);
  else if (type === 'xfs' || type === 'btrfs') await exec(`mkfs.${type}`, ['-q', '-f', ...args, device]);
  else await exec(`mkfs.${type}`, [...args, device]);
}

/** Mounts a device, or bind-mounts by `options`. The directory is made if it is missing. */
export async function mountDevice(device: string, mountPoint: string, options?: string): Promise<void> {
  await mkdir(mountPoint, { recursive: true });
  await exec('mount', [...(options === undefined ? [] : ['-o', options]), device, mountPoint]);
}

/** Unmounts. Thaws first if a failed test left the filesystem frozen, since umount would hang. */
export async function unmount(mountPoint: string): Promise<void> {
  await exec('fsfreeze', ['--unfreeze', mountPoint], { allow: [1] });
  await umount(mountPoint);
}

/**
 * Runs umount(8) on a mount point or a device, and repeats it while it is busy: daemons of other tests open
 * every mount.
 */
export function umount(place: string): Promise<void> {
  return untilFree(place, async () => {
    const { code } = await exec('umount', [place], { allow: [1, 32] });
    return code === 0;
  });
}

/** Tries until `release` returns true, for a minute at most. Then throws an error that names the users of `place`. */
async function untilFree(place: string, release: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!(await release())) {
    if (performance.now() > deadline)
      throw new Error(`${place} stays in use: ${(await usersOf(place)).join('; ') || 'by the kernel alone'}`);
    await sleep(20);
  }
}

/**
 * Returns the processes that have the device or the mount point open, or mounted in another mount namespace.
 */
async function usersOf(place: string): Promise<string[]> {
  const users: string[] = [];
  const namespace = (pid: string): Promise<string> => readlink(`/proc/${pid}/ns/mnt`).catch(() => '');
  const own = await namespace('self');
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [command, mounts, open] = await Promise.all([
      readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''),
      readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => ''),
      openFiles(pid),
    ]);
    const how = [
      ...(mounts.includes(` ${place} `) && (await namespace(pid)) !== own ? ['mounted'] : []),
      ...(open.some((path) => path === place || path.startsWith(`${place}/`)) ? ['open'] : []),
    ];
    if (how.length > 0)
      users.push(`${how.join(' and ')} in process ${pid} (${command.replaceAll('\0', ' ').slice(0, 80)})`);
  }
  return users;
}

async function openFiles(pid: string): Promise<string[]> {
  const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
  return Promise.all(descriptors.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
}
