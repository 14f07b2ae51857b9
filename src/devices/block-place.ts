/** Where a block device is in sysfs, and its attributes, read on the calling thread: sysfs never waits. */
import { readFileSync, readdirSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Device } from './device.ts';

/** Undefined: the device is gone. */
export function placeOf({ major, minor }: Pick<Device, 'major' | 'minor'>, sys: string): string | undefined {
  try {
    return realpathSync(join(sys, 'dev/block', `${major}:${minor}`));
  } catch {
    return undefined;
  }
}

/** The place of the whole disk. */
export function diskOf(place: string): string {
  return attributeOf(place, 'partition') === undefined ? place : dirname(place);
}

/** Places of the whole disks that the device lies on, through device-mapper and md. */
export function lowestDisksOf(place: string): string[] {
  const disk = diskOf(place);
  const below = listOf(join(disk, 'slaves'));
  if (below.length === 0) return [disk];
  const found = below.flatMap((name) => lowestDisksOf(realpathSync(join(disk, 'slaves', name))));
  return [...new Set(found)];
}

/** Without the newline at its end; undefined if there is none. */
export function attributeOf(place: string, name: string): string | undefined {
  try {
    return readFileSync(join(place, name), 'utf8').replace(/\n$/, '');
  } catch {
    return undefined;
  }
}

function listOf(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
