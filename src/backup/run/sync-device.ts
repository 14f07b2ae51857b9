/** Writes out the page cache: data that is only there is neither on the device nor in its allocation map. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { filePath } from '../../base/file-name.ts';
import { syncFilesystem } from '../../linux/syncfs.ts';
import type { DeviceBackup } from '../device-backup.ts';

/** Writes out the page cache of an idle device. The tracker sees its writes only then. */
export async function syncDevice({ hold, pair }: DeviceBackup): Promise<void> {
  if (hold !== undefined) return hold.sync();
  if (pair.device.kind === 'file') return;
  const device = await open(pair.device.path, constants.O_RDONLY);
  try {
    await device.sync();
  } finally {
    await device.close();
  }
}

/** Syncs the filesystems on a live device, so that a pass finds as many writes as possible. */
export async function syncMounts({ mounts }: DeviceBackup): Promise<void> {
  for (const { path } of mounts) {
    const directory = await open(filePath(path), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      await syncFilesystem(directory.fd);
    } finally {
      await directory.close();
    }
  }
}
