/** Whether a filesystem can be written to now, as far as mounts show, and how its device is recognised again. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../../base/errors.ts';
import { openDeviceSource } from '../../block/device-source.ts';
import type { Device } from '../../devices/device.ts';
import { readSignsOfLife } from '../../filesystems/signs-of-life.ts';
import type { Signs } from '../../filesystems/signs.ts';
import { readMounts } from '../../linux/mountinfo.ts';
import { attribute } from '../../linux/sysfs.ts';

export type Mounted = 'not' | 'read-only';

/**
 * Returns how a device is mounted if no mount of this namespace is writable. Otherwise returns the path of a writable
 * mount.
 */
export async function mountedHow(device: Device): Promise<Mounted | { readonly writableAt: string }> {
  const mounts = (await readMounts()).filter(
    ({ major, minor }) => major === device.major && minor === device.minor,
  );
  const writable = mounts.find(({ filesystemReadOnly }) => !filesystemReadOnly);
  if (writable !== undefined) return { writableAt: writable.path };
  return mounts.length === 0 ? 'not' : 'read-only';
}

/**
 * Returns why another process may still write to a device that is not mounted here: another namespace mounts it, or
 * something else holds it. Undefined if no process can. Opens the device exclusively for a moment, so do not call this
 * while other processes mount filesystems.
 */
export async function heldBySomebody(device: Device): Promise<string | undefined> {
  try {
    await (await open(device.path, constants.O_RDONLY | constants.O_EXCL)).close();
    return undefined;
  } catch (thrown) {
    if (errnoCode(thrown) !== 'EBUSY') throw thrown;
    const holders = device.holders.length > 0 ? ` (${device.holders.join(', ')})` : '';
    return `it is held, but not by a mount here${holders}`;
  }
}

/** Writes the device's dirty pages from the page cache to the disk. */
export async function settle(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Reads the signs of life from the disk. Returns a text with the reason if there are none. */
export async function signsOf(path: string): Promise<Signs | string> {
  const source = await openDeviceSource(path);
  try {
    return await readSignsOfLife((offset, length) => source.readAt(offset, length), source.size);
  } finally {
    await source.close();
  }
}

/**
 * Returns the names that the hardware, device-mapper and the partition table give the device. Empty if they give none.
 */
export async function identityOf(device: Device, devices: readonly Device[], sys = '/sys'): Promise<string> {
  const disk = devices.find(({ path }) => path === device.partition?.disk) ?? device;
  const place = join(sys, 'class/block', disk.kernelName);
  const names: string[] = [];
  for (const name of ['wwid', 'device/wwid', 'serial', 'device/serial', 'dm/uuid', 'md/uuid']) {
    const value = (await attribute(place, name))?.trim();
    if (value !== undefined && value !== '') names.push(`${name} ${value}`);
  }
  if (device.partition?.uuid !== undefined) names.push(`partition ${device.partition.uuid}`);
  return names.join(', ');
}

/**
 * Returns why tracking cannot continue on a device of this kind, or undefined. On such a device, the filesystem does
 * not show if the device below was replaced: another file behind a loop device, or another server's export.
 */
export function unsuitable(device: Device): string | undefined {
  if (device.kind === 'loop')
    return 'a loop device is made again at each boot, over a file that other processes can write';
  if (/^(nbd|zram|rbd|drbd|ram)/.test(device.kernelName))
    return 'other machines may write to its data, or its data is lost with the memory';
  if (device.filesystem === undefined)
    return 'no filesystem could be read on it (it has none, or did not answer)';
  if (device.filesystem.uuid === undefined)
    return 'its filesystem has no UUID that identifies it after the reboot';
  return undefined;
}
