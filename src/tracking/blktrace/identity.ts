/** Whether a device is still the one whose tracking began: by sysfs, which no freeze holds up. */
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { errnoCode, toAgentError } from '../../base/errors.ts';
import { markDifference, type Marks, marksOf, readLiveDevice } from '../ebpf/marks.ts';
import type { TrackedDevice } from '../tracker.ts';

/**
 * What has changed, as the reason of an ended epoch; undefined where nothing has. `bios`: the device is
 * bio-based, so that who lies on it matters.
 */
export function changedIdentity(
  device: TrackedDevice,
  marks: Marks,
  bios: boolean,
  sys = '/sys',
): string | undefined {
  try {
    const live = readLiveDevice(device.major, device.minor, sys);
    const difference = markDifference(marks, marksOf(device, live, marks.bootId));
    if (difference !== undefined) return difference;
  } catch (thrown) {
    return toAgentError(thrown).message;
  }
  return bios ? unseenHolder(join(sys, 'dev/block', `${device.major}:${device.minor}`)) : undefined;
}

/**
 * Devices that pass writes on to the one below without queueing them anew (md's raid0 does, and its like), so
 * that nothing is seen of them below, where bios are not turned into requests. `place`: its folder in sysfs.
 */
export function unseenHolder(place: string): string | undefined {
  let holders: string[];
  try {
    holders = readdirSync(join(place, 'holders'));
  } catch (thrown) {
    const code = errnoCode(thrown) ?? String(thrown);
    return code === 'ENOENT' ? undefined : `what lies on ${basename(place)} cannot be listed: ${code}`;
  }
  const passing = holders.find((name) => /^(md|bcache|drbd)/.test(name));
  return passing === undefined
    ? undefined
    : `${basename(place)} is a part of ${passing}, whose writes do not show on it`;
}
