/**
 * Checks the mounts again, since they change while a job runs. The freeze must hit the filesystems that are on the
 * devices at that moment. After an unmount, the path leads to another filesystem, which must not be frozen instead.
 */
import { AgentError } from '../../base/errors.ts';
import { filesystemsOn, type MountedFilesystem, readStack } from '../../devices/stacking.ts';
import { freezable } from '../../freeze/freezable.ts';
import type { DeviceBackup } from '../device-backup.ts';

/**
 * Returns the filesystems to freeze for each live device, in order. Throws FREEZE_FAILED if a filesystem that was
 * mounted when the job began is no longer mounted.
 */
export async function mountsToFreeze(
  live: readonly DeviceBackup[],
): Promise<Map<DeviceBackup, MountedFilesystem[]>> {
  const stack = await readStack();
  const result = new Map<DeviceBackup, MountedFilesystem[]>();
  for (const backup of live) {
    const { path, kernelName } = backup.pair.device;
    const now = filesystemsOn(stack, [kernelName]).filter(
      ({ readOnly, type }) => !readOnly && freezable(type),
    );
    const gone = backup.mounts.find((before) => !now.some(({ device }) => device === before.device));
    if (gone !== undefined)
      throw new AgentError(
        'FREEZE_FAILED',
        `${gone.path} (${gone.device}) was unmounted or made read-only during the backup of ${path}`,
        { hint: 'start the backup again, and leave the filesystem mounted or unmounted while it runs' },
      );
    result.set(backup, now);
  }
  return result;
}

/** Throws DEVICE_BUSY if a device that was not written to when the job began has a writable filesystem now. */
export async function refuseNewWriters(devices: readonly DeviceBackup[]): Promise<void> {
  const idle = devices.filter(
    ({ isLive, hold, pair }) => !isLive && hold === undefined && pair.device.kind !== 'file',
  );
  if (idle.length === 0) return;
  const stack = await readStack();
  for (const { pair } of idle) {
    const before = new Set(pair.device.mounts.filter(({ readOnly }) => !readOnly).map(({ path }) => path));
    const writer = filesystemsOn(stack, [pair.device.kernelName]).find(
      ({ readOnly, path, type }) => !readOnly && freezable(type) && !before.has(path),
    );
    if (writer !== undefined)
      throw new AgentError(
        'DEVICE_BUSY',
        `${pair.device.path} was mounted writable at ${writer.path} during its backup as a read-only filesystem`,
        { hint: 'start the backup again; a filesystem that is written to is frozen for a moment' },
      );
  }
}
