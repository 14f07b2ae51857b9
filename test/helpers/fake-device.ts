/** Block devices that do not exist, for tests of texts about devices. */
import { MiB } from '../../src/base/bytes.ts';
import type { Device } from '../../src/devices/device.ts';

/** Returns an empty disk of 100 MiB with the properties in `more`. */
export function fakeDevice(kernelName: string, more: Partial<Device> = {}): Device {
  return {
    path: `/dev/${kernelName}`,
    kernelName,
    major: 8,
    minor: 0,
    kind: 'disk',
    size: 100 * MiB,
    sectorSize: 512,
    physicalSectorSize: 4096,
    readOnly: false,
    partition: undefined,
    holders: [],
    lowers: [],
    backingFile: undefined,
    filesystem: undefined,
    mounts: [],
    used: undefined,
    backup: { possible: true, how: 'every block' },
    ...more,
  };
}
