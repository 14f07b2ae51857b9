/**
 * Whether a filesystem UUID names more than one device: clones, and snapshots that stay. A vault keeps the chains of many
 * devices, and two devices must not share one: each would take the other's fingerprints for its own.
 */
import type { Device } from '../../devices/device.ts';
import { type Stack, withLowers } from '../../devices/stacking.ts';
import type { JobEnvironment } from '../job.ts';

/** True if another device has the UUID that is neither below nor above this one and does not show a recovery point. */
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
