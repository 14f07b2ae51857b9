/** Describes a device of the inventory to a tracker. */
import type { Device } from '../devices/device.ts';
import type { TrackedDevice } from './tracker.ts';

/** Undefined for what no tracker can follow: image files. */
export function trackedDevice(device: Device, devices: readonly Device[]): TrackedDevice | undefined {
  if (device.kind === 'file') return undefined;
  const { path, major, minor, size, partition } = device;
  const disk = partition === undefined ? undefined : devices.find((each) => each.path === partition.disk);
  if (partition !== undefined && disk === undefined) return undefined;
  return {
    path,
    major,
    minor,
    size,
    partition:
      partition === undefined || disk === undefined
        ? undefined
        : { major: disk.major, minor: disk.minor, start: partition.start },
    diskSequence: device.diskSequence,
    uuid: device.filesystem?.uuid ?? '',
  };
}
