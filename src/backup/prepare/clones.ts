/**
 * Finds out if a filesystem UUID names more than one device, for example a clone or a permanent snapshot. A vault keeps
 * the chains of many devices, and two devices must not share one. Each would use the fingerprints of the other.
 */
import type { Device } from '../../devices/device.ts';
import { type Stack, withLowers } from '../../devices/stacking.ts';
import type { JobEnvironment } from '../job.ts';

/**
 * True if another device has the same UUID. Devices below or above this one, and those that show a recovery point, do
 * not count.
 */
export async function hasClone(
  device: Device,
  { devices, stack }: { readonly devices: readonly Device[]; readonly stack: Stack },
  { shownPoints }: Pick<JobEnvironment, 'shownPoints'>,
): Promise<boolean> {
  const uuid = device.filesystem?.uuid;
  if (uuid === undefined || device.kind === 'file') return false;
  const isShown = await shownPoints?.();
  const below = withLowers(stack, device.kernelName);
  return devices.some(
    (other) =>
      other.kernelName !== device.kernelName &&
      other.filesystem?.uuid === uuid &&
      !below.has(other.kernelName) &&
      !withLowers(stack, other.kernelName).has(device.kernelName) &&
      isShown?.(other) !== true,
  );
}
