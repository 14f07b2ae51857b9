/**
 * The place for blocks that memory has no room for until the thaw: a directory of the daemon. It must lie on no device
 * of the job. Otherwise a write to the frozen filesystem would wait for the thaw, and the thaw for the write.
 */
import { statfs } from 'node:fs/promises';
import { deviceUnderPath } from '../../devices/topology.ts';
import { type Stack, liesOn } from '../../devices/stacking.ts';
import { type SpillPlace, spaceIn } from '../copy/spool-room.ts';
import type { DevicePair } from '../job.ts';

/** Types of filesystems that lie on one device only. */
const onOneDevice = /^(ext[234]|xfs)$/;

/** Returns undefined if the directory lies on a device of the job, or if that is not known. */
export async function spillPlace(
  directory: string,
  pairs: readonly DevicePair[],
  stack: Stack,
): Promise<SpillPlace | undefined> {
  try {
    const under = await deviceUnderPath(directory, stack.mounts, stack.mountId);
    const mount = stack.mounts.find(({ device }) => device === under);
    if (under === undefined || mount === undefined || !onOneDevice.test(mount.type)) return undefined;
    for (const { device } of pairs)
      if ((await liesOn(stack, directory, device.kernelName)) !== undefined) return undefined;
    const { bavail, bsize } = await statfs(directory);
    return { directory, limit: spaceIn(bavail * bsize) };
  } catch {
    return undefined;
  }
}
