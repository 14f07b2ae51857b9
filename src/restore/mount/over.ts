/**
 * The directories on which a recovery point is mounted only with `--over`. A mount hides everything below its directory.
 * On a mount point, or on the usual mount point of a device, programs would mistake the old state for the present one; so
 * would the next backup by path. On the vault, the mount would hide the data that it is read from.
 */
import { readFile, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { type MountEntry, unescapeOctal } from '../../linux/mountinfo.ts';

export interface Places {
  readonly mounts: readonly Pick<MountEntry, 'path' | 'type' | 'source'>[];
  /** Mount points of /etc/fstab, and those of the backed-up machine at the time of the recovery point. */
  readonly known: readonly string[];
  /** Path of the vault's directory or of the image file; undefined for a bucket. */
  readonly image: string | undefined;
  readonly stateDirectory: string | undefined;
  readonly runDirectory: string;
}

export interface Hidden {
  /** A text for the message: `it is a mount point (ext4 /dev/sda1)`. */
  readonly why: string;
  /** The mount would hide the vault or image file that it is read from. */
  readonly image: boolean;
  /** Refused also with `--over`. */
  readonly never: boolean;
}

/** Returns what a mount on the directory would hide; undefined if nothing important. All paths are real paths. */
export function hiddenBy(directory: string, places: Places): Hidden | undefined {
  const { mounts, known, image, stateDirectory, runDirectory } = places;
  if (isWithin(runDirectory, directory))
    return { why: `it contains the run directory ${runDirectory}`, image: false, never: true };
  if (image !== undefined && (isWithin(image, directory) || isWithin(directory, image)))
    return { why: `the point is read from ${image}`, image: true, never: false };
  const said = { image: false, never: false };
  if (
    stateDirectory !== undefined &&
    (isWithin(stateDirectory, directory) || isWithin(directory, stateDirectory))
  )
    return { ...said, why: `the state directory ${stateDirectory} is there` };
  const mounted = mounts.find(({ path }) => isWithin(path, directory));
  if (mounted !== undefined) {
    const what = `${mounted.type} ${mounted.source}`;
    return {
      ...said,
      why:
        mounted.path === directory
          ? `it is a mount point (${what})`
          : `${mounted.path} is mounted below it (${what})`,
    };
  }
  const place = known.find((path) => isWithin(path, directory));
  return place === undefined ? undefined : { ...said, why: `${place} is the mount point of a device` };
}

/** Whether `path` is `directory` or below it. */
function isWithin(path: string, directory: string): boolean {
  return path === directory || directory === '/' || path.startsWith(`${directory}/`);
}

/** Throws FILE_EXISTS. */
export function refuseHiding(directory: string, hidden: Hidden | undefined, over: boolean): void {
  if (hidden === undefined || (over && !hidden.never)) return;
  throw new AgentError('FILE_EXISTS', `Refusing to mount on ${directory}: ${hidden.why}`, {
    hint: hidden.never
      ? 'choose another directory'
      : 'choose another directory, or give --over to mount there anyway',
  });
}

/** Returns the real path of a directory that may not exist yet. */
export async function realPlace(path: string): Promise<string> {
  const whole = resolve(path);
  try {
    return await realpath(whole);
  } catch {
    return whole === '/' ? whole : join(await realPlace(dirname(whole)), basename(whole));
  }
}

/** Returns the mount points of an fstab (fstab(5)); none if the file is missing. */
export async function fstabPlaces(file = '/etc/fstab'): Promise<string[]> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return text
    .split('\n')
    .filter((line) => !/^\s*(#|$)/.test(line))
    .map((line) => unescapeOctal(line.trim().split(/\s+/)[1] ?? ''))
    .filter((path) => path.startsWith('/') && path !== '/');
}

/** Returns the mount points in the layout of a machine (docs/formats/vault.md, "Points"). The layout may be malformed. */
export function layoutPlaces(layout: Readonly<Record<string, unknown>>): string[] {
  const devices = Array.isArray(layout['devices']) ? (layout['devices'] as unknown[]) : [];
  return devices.flatMap((device) => {
    const mounts = (device as { mounts?: unknown } | null)?.mounts;
    if (!Array.isArray(mounts)) return [];
    return (mounts as unknown[]).flatMap((mount) => {
      const path = (mount as { path?: unknown } | null)?.path;
      return typeof path === 'string' && path.startsWith('/') && path !== '/' ? [path] : [];
    });
  });
}
