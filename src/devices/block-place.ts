/** The place of a block device in sysfs, and its attributes. Read on the calling thread, because sysfs never waits. */
import { readFileSync, readdirSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Device } from './device.ts';

/** Returns the path of the device in sysfs. Undefined if the device is gone. */
export function placeOf({ major, minor }: Pick<Device, 'major' | 'minor'>, sys: string): string | undefined {
  try {
    return realpathSync(join(sys, 'dev/block', `${major}:${minor}`));
  } catch {
    return undefined;
  }
}

/** Returns the path of the whole disk in sysfs. */
export function diskOf(place: string): string {
  return attributeOf(place, 'partition') === undefined ? place : dirname(place);
}

/** Returns the paths of the whole disks that the device lies on, through device-mapper and md. */
export function lowestDisksOf(place: string): string[] {
  const disk = diskOf(place);
  const below = listOf(join(disk, 'slaves'));
  if (below.length === 0) return [disk];
  const found = below.flatMap((name) => lowestDisksOf(realpathSync(join(disk, 'slaves', name))));
  return [...new Set(found)];
}

/** Reads an attribute, without the newline at its end. Undefined if there is no such attribute. */
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
