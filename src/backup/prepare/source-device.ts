/** Checks of the source device: which programs write to it, and whether it is still the device of the inventory. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { type Attachment, readAttachment } from '../../devices/attachment.ts';
import type { Device } from '../../devices/device.ts';
import { type MountedFilesystem, type Stack, filesystemsOn, liesOn } from '../../devices/stacking.ts';
import { freezable } from '../../freeze/freezable.ts';
import { swapPaths } from '../../linux/device-uses.ts';
import type { JobWarning } from '../../api/job-status.ts';

/** Throws DEVICE_GONE if the device is no longer the one of the inventory. */
export function attachmentOf(device: Device): Attachment {
  const found = readAttachment(device);
  if (found?.size === device.size) return found;
  throw new AgentError(
    'DEVICE_GONE',
    `${device.path} had ${device.size} bytes a moment ago, and ${found === undefined ? 'is gone' : `has ${found.size}`} now`,
    { hint: 'start the backup again' },
  );
}

/**
 * Returns true if a write inside the freeze means that the image is torn. Swap on the device is also written there. And
 * a filesystem that cannot be frozen has a warning of its own.
 */
export async function isWatched(device: Device, stack: Stack): Promise<boolean> {
  if (device.kind === 'file') return false;
  const writable = filesystemsOn(stack, [device.kernelName]).filter((mount) => !mount.readOnly);
  if (writable.some((mount) => !freezable(mount.type))) return false;
  for (const path of await swapPaths())
    if ((await liesOn(stack, path, device.kernelName).catch(() => undefined)) !== undefined) return false;
  return true;
}

/** Returns the start offsets of the partitions with writable mounts: their own maps are read as live or frozen. */
export function livePartitions(disk: Device, devices: readonly Device[]): number[] {
  return devices.flatMap(({ partition, mounts }) =>
    partition?.disk === disk.path && mounts.some((mount) => !mount.readOnly) ? [partition.start] : [],
  );
}

/**
 * Returns the writable filesystems on the device, or on anything that lies on it. Those that cannot be frozen become
 * warnings.
 */
export function writableMounts(device: Device, stack: Stack, warnings: JobWarning[]): MountedFilesystem[] {
  const writable = filesystemsOn(stack, [device.kernelName]).filter((mount) => !mount.readOnly);
  for (const mount of writable)
    if (!freezable(mount.type))
      warnings.push({
        code: 'NOT_FROZEN',
        device: device.path,
        message: `${mount.type} at ${mount.path} cannot be frozen; data written to it during the backup may be torn`,
      });
  return writable.filter((mount) => freezable(mount.type));
}

/**
 * Opens an idle device exclusively for the time of the job, so that no program mounts it. The device may be in use
 * without a mount that could be frozen (by a virtual machine or a database). It is then copied with a warning.
 */
export async function holdIdle(device: Device, warnings: JobWarning[]): Promise<FileHandle | undefined> {
  if (device.kind === 'file') return undefined;
  try {
    return await open(device.path, constants.O_RDONLY | constants.O_EXCL);
  } catch (error) {
    const readOnly =
      device.readOnly || (device.mounts.length > 0 && device.mounts.every((mount) => mount.readOnly));
    if (errnoCode(error) !== 'EBUSY') throw error;
    if (!readOnly && device.filesystem?.type !== 'swap')
      warnings.push({
        code: 'IN_USE',
        device: device.path,
        message:
          `${device.path} is in use by something that cannot be frozen` +
          (device.holders.length > 0 ? ` (${device.holders.join(', ')})` : '') +
          '; data written to it during the backup may be torn',
      });
    return undefined;
  }
}
