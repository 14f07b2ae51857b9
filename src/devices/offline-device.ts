/** The devices of the offline tools: block devices of the inventory, and image files. */
import { stat } from 'node:fs/promises';
import { AgentError } from '../base/errors.ts';
import type { Device } from './device.ts';
import { findDevice } from './find.ts';
import { listDevices } from './inventory.ts';

/** The device, and the inventory it comes from. Throws DEVICE_NOT_FOUND, DEVICE_AMBIGUOUS. */
export async function offlineDevice(name: string): Promise<{ device: Device; devices: Device[] }> {
  const file = name.includes('/') ? await stat(name).catch(() => undefined) : undefined;
  if (file?.isFile() !== true) {
    const devices = await listDevices();
    return { device: await findDevice(devices, name), devices };
  }
  return { device: imageFile(name, file.size), devices: [] };
}

function imageFile(name: string, size: number): Device {
  return {
    path: name,
    kernelName: '',
    major: 0,
    minor: 0,
    kind: 'file',
    size,
    sectorSize: 512,
    physicalSectorSize: 512,
    readOnly: false,
    partition: undefined,
    holders: [],
    lowers: [],
    backingFile: undefined,
    filesystem: undefined,
    mounts: [],
    used: undefined,
    backup: { possible: size > 0, how: size > 0 ? 'used blocks' : 'the file is empty' },
  };
}

/** Throws DEVICE_BUSY where a filesystem of the device is mounted writable: its blocks change under the reader. */
export function refuseMounted(device: Device): void {
  const mount = device.mounts.find(({ readOnly }) => !readOnly);
  if (mount !== undefined)
    throw new AgentError('DEVICE_BUSY', `${device.path} is mounted at ${mount.path}`, {
      hint: 'unmount it, or back it up while it runs with dattocli startbackup',
    });
}
