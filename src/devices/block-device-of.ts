/** Finds the block device below a mount. */
import { stat } from 'node:fs/promises';
import { boundedCall } from '../base/bounded-call.ts';
import type { MountEntry } from '../linux/mountinfo.ts';
import { splitDeviceNumber } from '../linux/device-uses.ts';

/**
 * Returns the device number. btrfs (and other filesystems that span devices) give their files anonymous numbers of
 * major 0. For these, only the source named at the mount tells the device. Undefined if no block device lies below.
 */
export async function blockDeviceOf(
  entry: MountEntry,
): Promise<{ major: number; minor: number } | undefined> {
  if (entry.major !== 0) return entry;
  if (!entry.source.startsWith('/')) return undefined;
  const node = await boundedCall('stat', entry.source, () => stat(entry.source)).catch(() => undefined);
  return node?.isBlockDevice() === true ? splitDeviceNumber(node.rdev) : undefined;
}

export function numberKey(device: { major: number; minor: number }): string {
  return `${device.major}:${device.minor}`;
}
