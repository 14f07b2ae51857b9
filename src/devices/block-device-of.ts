/** From a mount to the block device below it. */
import { stat } from 'node:fs/promises';
import { boundedCall } from '../base/bounded-call.ts';
import type { MountEntry } from '../linux/mountinfo.ts';
import { splitDeviceNumber } from '../linux/usage.ts';

/**
 * btrfs (and others that span devices) give their files anonymous numbers of major 0; only what was named at
 * the mount tells the device. Undefined where there is no block device.
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
