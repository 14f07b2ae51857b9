/**
 * Where a recovery point is not mounted without being asked twice (`--over`): what lies below the directory is hidden as long
 * as the point is mounted. Over a mount point or the place of a device that is backed up, everyone (also the next backup by
 * path) would take the old state for the present one. Over the vault itself the point hides what it is read from.
 */
import { readFile, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { type MountEntry, unescapeOctal } from '../../linux/mountinfo.ts';

export interface Places {
  readonly mounts: readonly Pick<MountEntry, 'path' | 'type' | 'source'>[];
  /** Mount points of /etc/fstab, and those that the machine of the point had when the point was made. */
  readonly known: readonly string[];
  /** Of the vault's directory or the image file; undefined for a bucket. */
  readonly image: string | undefined;
  readonly stateDirectory: string | undefined;
  readonly runDirectory: string;
}

export interface Hidden {
  /** For people: `it is a mount point (ext4 /dev/sda1)`. */
  readonly why: string;
  /** What the point is read from would be hidden. */
  readonly image: boolean;
  /** Not even with `--over`. */
  readonly never: boolean;
}

/** What a mount on the directory would hide; undefined if nothing that matters. All paths are real ones. */
export function hiddenBy(directory: string, places: Places): Hidden | undefined {
  const { mounts, known, image, stateDirectory, runDirectory } = places;
  if (isWithin(runDirectory, directory))
    return { why: `it holds the run directory ${runDirectory}`, image: false, never: true };
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
  return place === undefined ? undefined : { ...said, why: `it is the place of a device: ${place}` };
}

/** `path` is `directory`, or below it. */
function isWithin(path: string, directory: string): boolean {
  return path === directory || directory === '/' || path.startsWith(`${directory}/`);
}

/** Throws FILE_EXISTS. */
export function refuseHiding(directory: string, hidden: Hidden | undefined, over: boolean): void {
  if (hidden === undefined || (over && !hidden.never)) return;
  throw new AgentError('FILE_EXISTS', `No recovery point is mounted on ${directory}: ${hidden.why}`, {
    hint: hidden.never
      ? 'Name another directory'
      : 'Name another directory, or give --over to mount it there nevertheless',
  });
}

/** The real path of a directory that may have to be made. */
export async function realPlace(path: string): Promise<string> {
  const whole = resolve(path);
  try {
    return await realpath(whole);
  } catch {
    return whole === '/' ? whole : join(await realPlace(dirname(whole)), basename(whole));
  }
}

/** Mount points of an fstab (fstab(5)); none where there is none. */
export async function fstabPlaces(file = '/etc/fstab'): Promise<string[]> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return text
    .split('\n')
    .filter((line) => !/^\s*(#|$)/.test(line))
    .map((line) => unescapeOctal(line.trim().split(/\s+/)[1] ?? ''))
    .filter((path) => path.startsWith('/') && path !== '/');
}

/** Mount points in the layout of a machine (docs/formats/vault.md, "Points"), of which nothing is certain. */
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
