/**
 * Checks if a device is still the one whose tracking began. Reads only sysfs, which a frozen filesystem does not block.
 */
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { errnoCode, toAgentError } from '../../base/errors.ts';
import {
  identityDifference,
  type DeviceIdentity,
  deviceIdentity,
  readLiveDevice,
} from '../device-identity.ts';
import type { TrackedDevice } from '../tracker.ts';

/**
 * Returns the first change, as the reason of an ended epoch; undefined if nothing has changed. `bios`: the device is
 * bio-based, so the devices on top of it matter.
 */
export function changedIdentity(
  device: TrackedDevice,
  identity: DeviceIdentity,
  bios: boolean,
  sys = '/sys',
): string | undefined {
  try {
    const live = readLiveDevice(device.major, device.minor, sys);
    const difference = identityDifference(identity, deviceIdentity(device, live, identity.bootId));
    if (difference !== undefined) return difference;
  } catch (thrown) {
    return toAgentError(thrown).message;
  }
  return bios ? unseenHolder(join(sys, 'dev/block', `${device.major}:${device.minor}`)) : undefined;
}

/**
 * Finds a device on top that passes writes on without queueing them again (md's raid0 and similar). If bios are not
 * turned into requests below, these writes are not seen there. `place`: the folder of the lower device in sysfs.
 */
export function unseenHolder(place: string): string | undefined {
  let holders: string[];
  try {
    holders = readdirSync(join(place, 'holders'));
  } catch (thrown) {
    const code = errnoCode(thrown) ?? String(thrown);
    return code === 'ENOENT' ? undefined : `the devices on ${basename(place)} cannot be listed: ${code}`;
  }
  const passing = holders.find((name) => /^(md|bcache|drbd)/.test(name));
  return passing === undefined
    ? undefined
    : `${basename(place)} is a part of ${passing}, whose writes do not show on it`;
}
