/** Facts by which a device is recognised after a reboot. */
import { join } from 'node:path';
import { openDeviceSource } from '../../block/device-source.ts';
import type { Device } from '../../devices/device.ts';
import { readSignsOfLife } from '../../filesystems/signs-of-life.ts';
import type { Signs } from '../../filesystems/signs.ts';
import { attribute } from '../../linux/sysfs.ts';

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
export function whyUnsuitable(device: Device): string | undefined {
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
