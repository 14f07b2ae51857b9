/**
 * Finds the device that a user names: by filesystem UUID, path (also a link such as /dev/disk/by-id/…), mount point,
 * label, or partition UUID or label. These names may be plain or have blkid's prefix (`LABEL=data`).
 */
import { realpath, stat } from 'node:fs/promises';
import { boundedCall, isNoAnswer } from '../base/bounded-call.ts';
import { AgentError } from '../base/errors.ts';
import { shownName } from '../base/file-name.ts';
import { splitDeviceNumber } from '../linux/device-uses.ts';
import type { Device } from './device.ts';

/**
 * Returns the one device with this name. `isCopy` is true for a device that only shows the backup of another device.
 * Only its path names such a copy, since it shares UUID and label with the other. Throws DEVICE_NOT_FOUND,
 * DEVICE_AMBIGUOUS with the candidates, or NO_ANSWER if the path hangs.
 */
export async function findDevice(
  devices: readonly Device[],
  name: string,
  isCopy: (device: Device) => boolean = () => false,
): Promise<Device> {
  const candidates = await candidatesFor(devices, name, isCopy);
  const [only, ...others] = candidates;
  if (only === undefined) throw await notFound(name);
  if (others.length > 0)
    throw new AgentError(
      'DEVICE_AMBIGUOUS',
      `"${name}" names ${candidates.length} block devices: ${candidates.map((each) => each.path).join(', ')}`,
      { hint: 'name the one meant by its path, for instance ' + only.path },
    );
  return only;
}

type Match = (device: Device, value: string) => boolean;

const byUuid: Match = (device, value) => sameText(device.filesystem?.uuid, value);
const byLabel: Match = (device, value) => device.filesystem?.label === value;
const byPartUuid: Match = (device, value) => sameText(device.partition?.uuid, value);
const byPartLabel: Match = (device, value) => device.partition?.label === value;

const prefixes: Readonly<Record<string, Match>> = {
  UUID: byUuid,
  LABEL: byLabel,
  PARTUUID: byPartUuid,
  PARTLABEL: byPartLabel,
};

async function candidatesFor(
  devices: readonly Device[],
  name: string,
  isCopy: (device: Device) => boolean,
): Promise<Device[]> {
  if (name.startsWith('/')) return byPath(devices, name);
  const originals = devices.filter((device) => !isCopy(device));
  const [, prefix, rest] = /^([A-Za-z]+)=(.*)$/s.exec(name) ?? [];
  const match = prefixes[prefix?.toUpperCase() ?? ''];
  if (match !== undefined && rest !== undefined) {
    const value = rest.replace(/^"(.*)"$/s, '$1');
    return preferTop(originals.filter((device) => match(device, value)));
  }
  // The strongest kind of name that fits wins: a label that looks like a UUID does not make that UUID ambiguous.
  for (const kind of [byUuid, byPartUuid, byLabel, byPartLabel]) {
    const found = originals.filter((device) => kind(device, name));
    if (found.length > 0) return preferTop(found);
  }
  return devices.filter((device) => device.kernelName === name);
}

async function byPath(devices: readonly Device[], path: string): Promise<Device[]> {
  const exact = devices.filter((device) => device.path === path);
  if (exact.length > 0) return exact;
  const node = await ifThere('stat', path, (each) => stat(each));
  if (node?.isBlockDevice() === true) {
    const { major, minor } = splitDeviceNumber(node.rdev);
    return devices.filter((device) => device.major === major && device.minor === minor);
  }
  const wanted = new Set([
    withoutSlash(path),
    (await ifThere('realpath', path, (each) => realpath(each))) ?? withoutSlash(path),
  ]);
  return devices.filter((device) =>
    device.mounts.some((mount) => mount.covered !== true && wanted.has(shownName(mount.path))),
  );
}

/**
 * Prefers the device that lies on all others. A mirror (md with its superblock at the end) shows the same filesystem
 * on its members and on itself. The mirror is meant, since it alone can be used.
 */
function preferTop(found: readonly Device[]): Device[] {
  if (found.length < 2) return [...found];
  const lowers = new Set(found.flatMap((device) => device.lowers));
  const tops = found.filter((device) => !lowers.has(device.kernelName));
  return tops.length === 1 ? tops : [...found];
}

async function notFound(name: string): Promise<AgentError> {
  const hint = 'dattocli devices lists the block devices of this machine and their names';
  if (!name.startsWith('/'))
    return new AgentError('DEVICE_NOT_FOUND', `Unable to find block device for UUID ${name}`, {
      hint: `${hint}; UUIDs, labels, partition UUIDs, paths and mount points are understood`,
    });
  const node = await ifThere('stat', name, (each) => stat(each));
  const what =
    node === undefined
      ? 'there is no such path'
      : node.isDirectory()
        ? 'it is no mount point of a block device'
        : node.isBlockDevice()
          ? 'it is an empty or unsuitable block device'
          : 'it is neither a block device nor a mount point';
  return new AgentError('DEVICE_NOT_FOUND', `Unable to find block device for ${name}: ${what}`, { hint });
}

/** Returns the result of the call. Undefined if it fails, for example if the path does not exist. Throws NO_ANSWER. */
async function ifThere<T>(
  what: string,
  path: string,
  call: (path: string) => Promise<T>,
): Promise<T | undefined> {
  try {
    return await boundedCall(what, path, () => call(path));
  } catch (thrown) {
    if (isNoAnswer(thrown)) throw thrown;
    return undefined;
  }
}

function sameText(a: string | undefined, b: string): boolean {
  return a !== undefined && a.toLowerCase() === b.toLowerCase();
}

function withoutSlash(path: string): string {
  return path.length > 1 ? path.replace(/\/+$/, '') : path;
}
