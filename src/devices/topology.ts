/**
 * Combines devices and mounts, as the kernel has them now: the device that each mount lies on, and the device below
 * each loop device's file.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isNoAnswer } from '../base/bounded-call.ts';
import { type FileIdentity, loopBackingOf, mountIdOf } from '../linux/locate.ts';
import { readAllMounts } from '../linux/mount-namespaces.ts';
import type { MountEntry } from '../linux/mountinfo.ts';
import { readBlockDevices, type SysBlockDevice } from '../linux/sysfs.ts';
import { splitDeviceNumber } from '../linux/device-uses.ts';
import { blockDeviceOf, numberKey } from './block-device-of.ts';

export interface TopologyOptions {
  /** Default `/sys`. */
  readonly sys?: string;
  /** Default `/proc`. */
  readonly proc?: string;
  /** Default `/dev`. */
  readonly dev?: string;
  /** Returns the file behind a loop device. By default, asks the kernel. */
  readonly backing?: (device: SysBlockDevice) => Promise<FileIdentity | undefined>;
  /** Returns the mountinfo id of the mount that a path lies on. By default, asks the kernel. */
  readonly mountId?: (path: string) => Promise<number | undefined>;
}

export interface PlacedMount extends MountEntry {
  /** Kernel name. Undefined if no block device lies below. */
  readonly device: string | undefined;
  /** The path leads to another mount, which lies over this one. Only checked if there is a device. */
  readonly covered: boolean;
}

export interface Topology {
  readonly devices: readonly SysBlockDevice[];
  readonly mounts: readonly PlacedMount[];
  /**
   * The kernel names of the devices that each device lies on, by its kernel name. For a partition: its disk. For a loop
   * device: the device under its file. For all others: their slaves in sysfs.
   */
  readonly lowers: ReadonlyMap<string, readonly string[]>;
  /** The file behind each loop device, by the kernel name of the loop device. */
  readonly backings: ReadonlyMap<string, FileIdentity>;
  readonly mountId: (path: string) => Promise<number | undefined>;
}

export async function readTopology(options: TopologyOptions = {}): Promise<Topology> {
  const { dev = '/dev', mountId = mountIdOf } = options;
  const devices = await readBlockDevices(options.sys);
  const mounts = await placeMounts(devices, options);
  const backing = options.backing ?? ((device) => loopBackingOf(join(dev, device.name)));
  const lowers = new Map<string, readonly string[]>();
  const backings = new Map<string, FileIdentity>();
  for (const device of devices)
    lowers.set(device.name, device.partition === undefined ? device.slaves : [device.partition.disk]);
  // All at once, so that several loop devices whose files hang cost the time limit only once.
  await Promise.all(
    devices.map(async (device) => {
      if (device.loop === undefined) return;
      let file: FileIdentity | undefined;
      try {
        file = await backing(device);
      } catch (thrown) {
        // If the file's filesystem hangs, reading its path would hang as well.
        if (isNoAnswer(thrown)) return;
      }
      if (file !== undefined) backings.set(device.name, file);
      const carrier =
        (await deviceAt(device.loop.file, devices)) ??
        (await carrierOf(device.loop.file, file, mounts, mountId));
      if (carrier !== undefined) lowers.set(device.name, [carrier]);
    }),
  );
  return { devices, mounts, lowers, backings, mountId };
}

async function placeMounts(
  devices: readonly SysBlockDevice[],
  { proc, mountId = mountIdOf }: TopologyOptions,
): Promise<PlacedMount[]> {
  const names = new Map(devices.map((device) => [numberKey(device), device.name]));
  return Promise.all(
    (await readAllMounts(proc)).map(async (entry) => {
      const number = await blockDeviceOf(entry);
      const device = number === undefined ? undefined : names.get(numberKey(number));
      const id = device === undefined ? entry.id : await mountOf(entry, mountId);
      return { ...entry, device, covered: id !== entry.id };
    }),
  );
}

/** Returns the id of the mount that the path of `entry` leads to. A mount that hangs does not count as covered. */
async function mountOf(
  entry: MountEntry,
  mountId: (path: string) => Promise<number | undefined>,
): Promise<number | undefined> {
  try {
    return await mountId(entry.path);
  } catch (thrown) {
    return isNoAnswer(thrown) ? entry.id : undefined;
  }
}

/**
 * Returns the kernel name of the block device at the path, since a loop device may lie on one. Undefined for a file.
 */
async function deviceAt(path: string, devices: readonly SysBlockDevice[]): Promise<string | undefined> {
  // Other paths are files, and `stat` of a file may wait for a hung filesystem.
  if (!path.startsWith('/dev/')) return undefined;
  const node = await stat(path).catch(() => undefined);
  if (node?.isBlockDevice() !== true) return undefined;
  const { major, minor } = splitDeviceNumber(node.rdev);
  return devices.find((each) => each.major === major && each.minor === minor)?.name;
}

/**
 * Returns the device that holds the file. The file's device number works for deleted files too. If that number is
 * anonymous, the path is used.
 */
async function carrierOf(
  path: string,
  file: FileIdentity | undefined,
  mounts: readonly PlacedMount[],
  mountId: (path: string) => Promise<number | undefined>,
): Promise<string | undefined> {
  if (file !== undefined) {
    const same = mounts.find((mount) => mount.major === file.major && mount.minor === file.minor);
    if (same?.device !== undefined) return same.device;
  }
  return deviceUnderPath(path, mounts, mountId);
}

/**
 * Returns the kernel name of the device whose filesystem holds the path. For an overlay, that is the device of its
 * upper directory. Undefined if there is none, or if the path does not exist.
 */
export async function deviceUnderPath(
  path: string,
  mounts: readonly PlacedMount[],
  mountId: (path: string) => Promise<number | undefined>,
  hops = 8,
): Promise<string | undefined> {
  const id = await mountId(path).catch(() => undefined);
  const mount = mounts.find((each) => each.id === id);
  if (mount === undefined || mount.device !== undefined || mount.type !== 'overlay' || hops === 0)
    return mount?.device;
  const upper = /(?:^|,)upperdir=([^,]+)/.exec(mount.superOptions)?.[1];
  return upper === undefined ? undefined : deviceUnderPath(upper, mounts, mountId, hops - 1);
}

/**
 * Ranks the mounts of one filesystem. A reachable mount wins, then a mount of the whole filesystem over a bind mount.
 */
export function fitness(mount: PlacedMount): number {
  return (mount.covered ? 0 : 2) + (mount.root === '/' ? 1 : 0);
}
