/**
 * The filesystems that the kernel itself uses on a device and its partitions, by their mounts and the devices on them. A
 * signature on the device may be older than that.
 */
import type { Device } from './device.ts';
import type { ExpectedFilesystem } from '../filesystems/used-map.ts';

export interface ExpectedFilesystems {
  /** Of a filesystem directly on the device; undefined if nothing shows what it is. */
  readonly whole: ExpectedFilesystem | undefined;
  /** By the byte where the partition begins. */
  readonly partitions: readonly (readonly [number, ExpectedFilesystem])[];
}

export function expectedFilesystems(device: Device, devices: readonly Device[]): ExpectedFilesystems {
  return {
    whole: expectedOn(device, devices),
    partitions: devices.flatMap((each) => {
      if (each.partition?.disk !== device.path) return [];
      const expected = expectedOn(each, devices);
      return expected === undefined ? [] : [[each.partition.start, expected] as const];
    }),
  };
}

/**
 * A mount says the type. A device-mapper device on it (multipath, a plain mapping) must show the same filesystem. If it has
 * an offset, or encrypts without a header, the signature below it does not count.
 */
function expectedOn(device: Device, devices: readonly Device[]): ExpectedFilesystem | undefined {
  const [mount] = device.mounts;
  if (mount !== undefined) return { type: mount.type, how: `${device.path} is mounted` };
  for (const name of device.holders) {
    const holder = devices.find(({ kernelName }) => kernelName === name);
    if (holder === undefined) continue;
    const { type, uuid } = holder.filesystem ?? { type: 'something unknown', uuid: undefined };
    return { type, uuid, how: `${device.path} is used by ${holder.path}` };
  }
  return undefined;
}
