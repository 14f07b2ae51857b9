/** Whether a device is still the one whose tracking began: by sysfs, which no freeze holds up. */
import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

export interface TrackedIdentity {
  readonly major: number;
  readonly minor: number;
  /** Bytes. */
  readonly size: number;
  /** Bytes from the start of the disk; 0 for whole disks. */
  readonly start: number;
  readonly diskSequence: number | undefined;
}

/**
 * What has changed, as the reason of an ended epoch; undefined where nothing has. `bios`: the device is
 * bio-based, so that who lies on it matters.
 */
export function changedIdentity(was: TrackedIdentity, bios: boolean, sys = '/sys'): string | undefined {
  let place: string;
  let partition: boolean;
  try {
    place = realpathSync(join(sys, 'dev/block', `${was.major}:${was.minor}`));
    partition = attribute(place, 'partition') !== undefined;
    const size = Number(attribute(place, 'size')) * 512;
    if (size !== was.size) return `its size changed from ${was.size} to ${size} bytes`;
    const start = Number(attribute(place, 'start') ?? 0) * 512;
    if (start !== was.start) return `the partition moved from byte ${was.start} to ${start} of its disk`;
  } catch {
    return 'it is gone';
  }
  const sequence = attribute(partition ? dirname(place) : place, 'diskseq');
  if (was.diskSequence !== undefined && sequence !== undefined && Number(sequence) !== was.diskSequence)
    return `another disk has its number (disk sequence ${sequence}, was ${was.diskSequence})`;
  return bios ? unseenHolder(place) : undefined;
}

/**
 * Devices that pass writes on to the one below without queueing them anew (md's raid0 does, and its like), so
 * that nothing is seen of them below, where bios are not turned into requests.
 */
export function unseenHolder(place: string): string | undefined {
  let holders: string[];
  try {
    holders = readdirSync(join(place, 'holders'));
  } catch {
    return undefined;
  }
  const passing = holders.find((name) => /^(md|bcache|drbd)/.test(name));
  return passing === undefined
    ? undefined
    : `${basename(place)} is a part of ${passing}, whose writes do not show on it`;
}

function attribute(place: string, name: string): string | undefined {
  try {
    return readFileSync(join(place, name), 'latin1').trim();
  } catch {
    return undefined;
  }
}
