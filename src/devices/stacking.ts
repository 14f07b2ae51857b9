/**
 * Which device lies on which: partitions on disks, LVM, md and crypt on their members, loop devices on the filesystem
 * that holds their file. This determines the filesystems to freeze for a device, in order. It also determines whether
 * a target lies on the device that is backed up.
 */
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { boundedCall } from '../base/bounded-call.ts';
import { AgentError, errnoCode } from '../base/errors.ts';
import { splitDeviceNumber } from '../linux/device-uses.ts';
import {
  deviceUnderPath,
  fitness,
  type PlacedMount,
  readTopology,
  type Topology,
  type TopologyOptions,
} from './topology.ts';

/** The machine's devices and mounts at one moment. Read it again before each freeze, because mounts come and go. */
export type Stack = Topology;

export function readStack(options: TopologyOptions = {}): Promise<Stack> {
  return readTopology(options);
}

/** A mounted filesystem. It is listed once, however often it is mounted. */
export interface MountedFilesystem {
  /** A mount point that leads to it. */
  readonly path: string;
  readonly type: string;
  /** The filesystem itself is read-only. A read-only bind mount does not make it so. */
  readonly readOnly: boolean;
  /** Kernel name of the device it lies on. It distinguishes filesystems. */
  readonly device: string;
  /** Number of devices below that one. A deeper filesystem must be frozen first. */
  readonly depth: number;
}

/**
 * Returns the mounted filesystems on the devices (kernel names) and on everything that lies on them, in the order in
 * which they must be frozen. A filesystem on a loop device comes before the one that holds the file. Throws
 * FREEZE_FAILED if a writable filesystem cannot be reached by any path.
 */
export function filesystemsOn(stack: Stack, names: readonly string[]): MountedFilesystem[] {
  const uppers = new Set(names.flatMap((name) => [...withUppers(stack, name)]));
  const best = new Map<string, PlacedMount>();
  for (const mount of stack.mounts) {
    if (mount.device === undefined || !uppers.has(mount.device)) continue;
    const known = best.get(mount.device);
    if (known === undefined || fitness(mount) > fitness(known)) best.set(mount.device, mount);
  }
  return [...best]
    .map(([device, mount]) => {
      if (mount.covered && !mount.filesystemReadOnly) throw unreachable(device, mount.path);
      const depth = depthOf(stack, device);
      return { path: mount.path, type: mount.type, readOnly: mount.filesystemReadOnly, device, depth };
    })
    .sort((a, b) => b.depth - a.depth || a.path.localeCompare(b.path));
}

function unreachable(device: string, path: string): AgentError {
  return new AgentError(
    'FREEZE_FAILED',
    `The filesystem of ${device} is mounted on ${path}, which another mount covers`,
    { hint: 'unmount what covers it, or mount the filesystem at a second place' },
  );
}

/** Returns the kernel names of the device and of everything below it. */
export function withLowers(stack: Stack, name: string): Set<string> {
  const seen = new Set<string>();
  const visit = (each: string): void => {
    if (seen.has(each)) return;
    seen.add(each);
    for (const lower of stack.lowers.get(each) ?? []) visit(lower);
  };
  visit(name);
  return seen;
}

/** Returns the kernel names of the device and of everything on it, including loop devices over files on it. */
export function withUppers(stack: Stack, name: string): Set<string> {
  return new Set([name, ...[...stack.lowers.keys()].filter((each) => withLowers(stack, each).has(name))]);
}

/** Length of the longest way down to a device that lies on no other device. */
function depthOf(stack: Stack, name: string, above: readonly string[] = []): number {
  const lowers = (stack.lowers.get(name) ?? []).filter((lower) => !above.includes(lower));
  if (lowers.length === 0) return 0;
  return 1 + Math.max(...lowers.map((lower) => depthOf(stack, lower, [...above, name])));
}

/**
 * Returns why writing to `target` would write to the device `source` (a kernel name), which is read. Undefined if it
 * would not. `target` is a file (which may not exist yet) or a block device. It collides if it is the same device, a
 * part of it, a device below it, the file behind it, or a file on a filesystem on it.
 */
export async function liesOn(stack: Stack, target: string, source: string): Promise<string | undefined> {
  const node = await boundedCall('stat', target, () => stat(target)).catch((thrown: unknown) => {
    // The file does not exist yet, or cannot exist. Opening it will report that.
    if (['ENOENT', 'ENOTDIR'].includes(errnoCode(thrown) ?? '')) return undefined;
    throw thrown;
  });
  if (node?.isBlockDevice() === true) return overlap(stack, target, splitDeviceNumber(node.rdev), source);
  const backed = node === undefined ? undefined : backedBy(stack, node, source);
  if (backed !== undefined) return `${target} is the file behind ${backed}`;
  const place = node === undefined ? dirname(target) : target;
  const device = await deviceUnderPath(place, stack.mounts, stack.mountId);
  if (device === undefined || !withUppers(stack, source).has(device)) return undefined;
  return device === source
    ? `${target} lies on the filesystem of ${source}`
    : `${target} lies on ${device}, which lies on ${source}`;
}

/** Throws SAME_DEVICE if the target lies on the device to be backed up. The arguments are those of `liesOn`. */
export async function refuseSelf(stack: Stack, target: string, source: string): Promise<void> {
  const reason = await liesOn(stack, target, source);
  if (reason !== undefined)
    throw new AgentError('SAME_DEVICE', `Refusing to synchronize a device with itself: ${reason}`, {
      hint: 'choose a target on another disk, or better on another machine',
    });
}

/** Returns why two block devices share bytes, or undefined. Two partitions of one disk share none. */
function overlap(
  stack: Stack,
  target: string,
  number: { major: number; minor: number },
  source: string,
): string | undefined {
  const own = stack.devices.find((each) => each.major === number.major && each.minor === number.minor);
  if (own === undefined) return undefined;
  if (own.name === source) return `${target} is ${source} itself`;
  if (withUppers(stack, source).has(own.name)) return `${target} (${own.name}) lies on ${source}`;
  if (withLowers(stack, source).has(own.name)) return `${source} lies on ${target} (${own.name})`;
  return undefined;
}

/** Returns the loop device over this file, among those that the source lies on or that lie on the source. */
function backedBy(stack: Stack, file: { dev: number; ino: number }, source: string): string | undefined {
  const { major, minor } = splitDeviceNumber(file.dev);
  for (const name of [...withLowers(stack, source), ...withUppers(stack, source)]) {
    const backing = stack.backings.get(name);
    if (backing?.inode === file.ino && backing.major === major && backing.minor === minor) return name;
  }
  return undefined;
}
