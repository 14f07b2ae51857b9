/**
 * The identity of a device: the kernel's numbers and disk sequence, its place in sysfs, its size, and the UUID
 * that the caller knows. Any difference ends the epoch, because another disk may have the same name. sysfs is kernel
 * memory, so reading it does not wait for a frozen filesystem.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { AgentError } from '../base/errors.ts';
import type { TrackedDevice } from './tracker.ts';

/** The kernel's present description of a device number. */
export interface LiveDevice {
  /** Bytes. */
  readonly size: number;
  /** Its whole disk; the device itself if it is not a partition. */
  readonly disk: { readonly major: number; readonly minor: number };
  /** Bytes from the beginning of the disk; 0 for whole disks. */
  readonly start: number;
  readonly partition: boolean;
  /** Since Linux 5.15. */
  readonly diskSequence: number | undefined;
  /**
   * Inode numbers of its folders in sysfs. The kernel gives each folder a new number. So a device that was removed and
   * added again under its old number has other inodes, and a loop device has others after each attach. Older kernels
   * offer nothing better.
   */
  readonly nodes: string;
  /** True if the device takes bios as they are: it has no requests, and no `mq` in sysfs. */
  readonly byBio: boolean;
  /**
   * A device on top of one without requests that passes bios on as they are: md RAID 0 and linear. Neither the
   * beginning nor, on older kernels, the end of such bios is seen here.
   */
  readonly handedDownBy: string | undefined;
}

/** The identity of the device that an epoch is bound to. */
export interface DeviceIdentity
  extends Omit<TrackedDevice, 'path' | 'diskSequence'>, Pick<LiveDevice, 'diskSequence' | 'nodes'> {
  readonly bootId: string;
}

/** Throws DEVICE_GONE if there is no such device. */
export function readLiveDevice(major: number, minor: number, sys = '/sys'): LiveDevice {
  try {
    const place = realpathSync(join(sys, `dev/block/${major}:${minor}`));
    const partition = existsSync(join(place, 'partition'));
    const disk = partition ? dirname(place) : place;
    const number = (path: string): number => Number(readFileSync(path, 'latin1'));
    const [diskMajor, diskMinor] = readFileSync(join(disk, 'dev'), 'latin1').trim().split(':').map(Number);
    const sequence = join(disk, 'diskseq');
    const byBio = !existsSync(join(disk, 'mq'));
    const folders = [disk, place, join(disk, 'loop')].filter((each) => existsSync(each));
    return {
      size: number(join(place, 'size')) * 512,
      disk: { major: diskMajor!, minor: diskMinor! },
      start: partition ? number(join(place, 'start')) * 512 : 0,
      partition,
      diskSequence: existsSync(sequence) ? number(sequence) : undefined,
      nodes: folders.map((each) => `${basename(each)} ${statSync(each, { bigint: true }).ino}`).join(', '),
      byBio,
      handedDownBy: byBio ? [place, disk].flatMap(holdersThatHandDown)[0] : undefined,
    };
  } catch (thrown) {
    throw new AgentError('DEVICE_GONE', `block device ${major}:${minor} does not exist any more`, {
      cause: thrown,
    });
  }
}

function holdersThatHandDown(place: string): string[] {
  const holders = join(place, 'holders');
  if (!existsSync(holders)) return [];
  return readdirSync(holders).filter((name) => {
    const level = join(holders, name, 'md/level');
    return existsSync(level) && ['raid0', 'linear'].includes(readFileSync(level, 'latin1').trim());
  });
}

/** Returns the identity of a device as it is now. */
export function deviceIdentity(device: TrackedDevice, live: LiveDevice, bootId: string): DeviceIdentity {
  const { major, minor, uuid } = device;
  return {
    major,
    minor,
    size: live.size,
    partition: live.partition ? { ...live.disk, start: live.start } : undefined,
    diskSequence: live.diskSequence,
    nodes: live.nodes,
    uuid,
    bootId,
  };
}

/** Returns the first difference, with both values; undefined if there is none. */
export function identityDifference(before: DeviceIdentity, now: DeviceIdentity): string | undefined {
  const pairs: readonly (readonly [string, unknown, unknown])[] = [
    ['boot', before.bootId, now.bootId],
    ['device number', `${before.major}:${before.minor}`, `${now.major}:${now.minor}`],
    ['size in bytes', before.size, now.size],
    ['place on the disk', placeOf(before), placeOf(now)],
    ['disk sequence', before.diskSequence, now.diskSequence],
    ['place in sysfs', before.nodes, now.nodes],
    ['UUID', before.uuid, now.uuid],
  ];
  for (const [what, old, present] of pairs)
    if (old !== present) return `its ${what} was ${String(old)} and is ${String(present)}`;
  return undefined;
}

/** Checks that the caller's description of the device is true. Throws DEVICE_GONE with both values. */
export function checkDescribed(device: TrackedDevice, live: LiveDevice): void {
  const pairs: readonly (readonly [string, unknown, unknown])[] = [
    ['size in bytes', device.size, live.size],
    ['start on its disk', device.partition?.start ?? 0, live.start],
    ['disk sequence', device.diskSequence ?? live.diskSequence, live.diskSequence],
  ];
  for (const [what, wanted, found] of pairs)
    if (wanted !== found)
      throw new AgentError(
        'DEVICE_GONE',
        `${device.path}: its ${what} is ${String(found)}, not ${String(wanted)}`,
        {
          hint: 'the device was replaced or resized in the meantime; run "dattocli devices" and start again',
        },
      );
}

function placeOf({ partition }: DeviceIdentity): string {
  return partition === undefined ? 'whole' : `${partition.major}:${partition.minor}+${partition.start}`;
}
