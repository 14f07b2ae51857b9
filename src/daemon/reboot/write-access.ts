/** Finds whether a filesystem can be written to now, as far as mounts and exclusive opens show. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { errnoCode } from '../../base/errors.ts';
import type { Device } from '../../devices/device.ts';
import { readMounts } from '../../linux/mountinfo.ts';

export type MountState = 'not' | 'read-only';

/**
 * Returns how a device is mounted if no mount of this namespace is writable. Otherwise returns the path of a writable
 * mount.
 */
export async function mountState(device: Device): Promise<MountState | { readonly writableAt: string }> {
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
export async function exclusiveHolder(device: Device): Promise<string | undefined> {
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
export async function syncDevice(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
