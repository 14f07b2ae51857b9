/** Finds recovery points and devices by the names that users give; pure. */
import { AgentError } from '../../base/errors.ts';
import { DeviceIdentities } from './identity.ts';
import type { Point, PointDevice } from './point.ts';
import { type TimeFacts, believedTime, clockTolerance, isAhead, storedTime } from './times.ts';

export interface PointFilter {
  /** Host name or machine ID. */
  readonly machine?: string | undefined;
  /** Path, filesystem UUID, partition UUID or label. */
  readonly device?: string | undefined;
}

const shortest = 4;

/** Returns the IDs that begin with `text`. Throws BAD_USAGE if `text` is not hexadecimal or too short. */
export function idsBeginningWith(ids: readonly string[], text: string): string[] {
  const digits = text.toLowerCase();
  if (!/^[0-9a-f]{1,32}$/.test(digits))
    throw new AgentError('BAD_USAGE', `"${text}" is not the ID of a recovery point`, {
      hint: 'give its ID or the first digits of it, latest, or latest:DEVICE',
    });
  if (digits.length < shortest)
    throw new AgentError(
      'BAD_USAGE',
      `"${text}" has ${digits.length} digits; at least ${shortest} are needed`,
      { hint: 'run dattocli points to see the points with enough digits' },
    );
  return ids.filter((id) => id.startsWith(digits));
}

export function isLatest(text: string): boolean {
  return text === 'latest' || text.startsWith('latest:');
}

/**
 * Returns the point of one machine that finished last; undefined if there is none. Points with untrusted times count
 * only if there are no others. Throws POINT_AMBIGUOUS if the points are of several machines, or of several devices
 * with the name; BAD_USAGE if nothing follows `latest:`.
 */
export function latestOf(
  points: readonly Point[],
  text: string,
  filter: PointFilter,
  times: TimeFacts = { now: Date.now() },
): Point | undefined {
  const device = text.includes(':') ? text.slice(text.indexOf(':') + 1) : undefined;
  if (device === '') throw new AgentError('BAD_USAGE', '"latest:" needs a device');
  const candidates = filterPoints(filterPoints(points, { device }), filter);
  const machines = new Map(candidates.map(({ machine }) => [`${machine.id} ${machine.name}`, machine.name]));
  if (machines.size > 1)
    throw new AgentError(
      'POINT_AMBIGUOUS',
      `${text} matches recovery points of ${[...machines.values()].join(', ')}`,
      { hint: 'name the machine, or give the ID of the point' },
    );
  const inOrder = candidates
    .map((point) => ({ point, time: believedTime(point, times.stored) }))
    .sort((a, b) => a.time - b.time || (a.point.id < b.point.id ? -1 : 1))
    .map(({ point }) => point);
  for (const name of [device, filter.device])
    if (name !== undefined) refuseSeveral(points, inOrder, name, text);
  const believed = inOrder.filter((point) => !isAhead(point, times.stored));
  // This machine's clock may be wrong (a rescue system), so it is not used for points whose arrival the store knows.
  // Other points in the future do not count. If all are in the future, this machine's clock is wrong.
  const present = believed.filter(
    (point) =>
      storedTime(point.id, times.stored) !== undefined ||
      Date.parse(point.finished) <= times.now + clockTolerance,
  );
  return present.at(-1) ?? believed.at(-1) ?? inOrder.at(-1);
}

/**
 * Throws POINT_AMBIGUOUS if a UUID or label matches several devices, and lists the last point of each. A path matches
 * any device that had the path. `candidates` are in order of time.
 */
function refuseSeveral(
  all: readonly Point[],
  candidates: readonly Point[],
  name: string,
  text: string,
): void {
  const identities = new DeviceIdentities(all);
  const last = new Map<string, { readonly point: Point; readonly device: PointDevice }>();
  for (const point of candidates)
    for (const device of point.devices.filter((each) => isDeviceNamed(each, name))) {
      if (device.path === name) return;
      last.set(identities.of(point, device).key, { point, device });
    }
  const [first, ...others] = last.values();
  if (first === undefined || others.every(({ device }) => isSameDevice(device, first.device))) return;
  const list = [...last.values()].map(
    ({ point, device }) => `${device.path} (last point ${point.id.slice(0, 8)}, ${point.finished})`,
  );
  throw new AgentError(
    'POINT_AMBIGUOUS',
    `${text}: ${list.length} devices have the name ${name}: ${list.join(', ')}`,
    { hint: 'give the ID of the point; run dattocli points to list the points' },
  );
}

/**
 * Returns true if it is the same device, even if it was formatted again. Without a recorded identity, paths are
 * compared.
 */
function isSameDevice(a: PointDevice, b: PointDevice): boolean {
  return a.identity === undefined || b.identity === undefined ? a.path === b.path : a.identity === b.identity;
}

export function filterPoints(points: readonly Point[], { machine, device }: PointFilter): Point[] {
  return points.filter(
    (point) =>
      (machine === undefined || point.machine.name === machine || point.machine.id === machine) &&
      (device === undefined || point.devices.some((each) => isDeviceNamed(each, device))),
  );
}

/**
 * Matches path, filesystem UUID (in any case), label or partition UUID; also `UUID=` and similar prefixes as in
 * fstab.
 */
export function isDeviceNamed(device: PointDevice, text: string): boolean {
  const match = /^(UUID|LABEL|PARTUUID)=(.+)$/.exec(text);
  const tag = match?.[1];
  const value = match?.[2] ?? text;
  if (value === '') return false;
  const same = (other: string | undefined): boolean => other?.toLowerCase() === value.toLowerCase();
  return (
    (tag === undefined && device.path === value) ||
    ((tag === undefined || tag === 'UUID') && same(device.filesystem?.uuid)) ||
    ((tag === undefined || tag === 'PARTUUID') && same(device.partition?.uuid)) ||
    ((tag === undefined || tag === 'LABEL') && device.filesystem?.label === value)
  );
}

/** Returns the only device of the point that matches `text`. Throws DEVICE_NOT_FOUND, DEVICE_AMBIGUOUS. */
export function findDevice(point: Point, text: string | undefined): PointDevice {
  const found =
    text === undefined ? point.devices : point.devices.filter((device) => isDeviceNamed(device, text));
  const paths = point.devices.map(({ path }) => path).join(', ');
  const [device, another] = found;
  if (device === undefined)
    throw new AgentError(
      'DEVICE_NOT_FOUND',
      `The recovery point ${point.id} has no device ${text ?? ''}`.trim(),
      {
        hint: `choose one of ${paths}`,
      },
    );
  if (another !== undefined)
    throw new AgentError(
      'DEVICE_AMBIGUOUS',
      text === undefined
        ? `The recovery point ${point.id} has ${found.length} devices`
        : `"${text}" matches ${found.length} devices of the recovery point ${point.id}`,
      { hint: `choose one of ${paths}` },
    );
  return device;
}

/** Finds the same device in the second point: by filesystem or partition UUID, else by path. */
export function findSameDevice(point: Point, device: PointDevice, text: string | undefined): PointDevice {
  const uuids = [device.filesystem?.uuid, device.partition?.uuid].filter(
    (uuid) => uuid !== undefined && uuid !== '',
  );
  for (const uuid of uuids) {
    const found = point.devices.filter((each) => isDeviceNamed(each, `UUID=${uuid ?? ''}`));
    const [only, another] = found.length > 0 ? found : partitionsNamed(point, uuid);
    if (only !== undefined && another === undefined) return only;
  }
  const byPath = point.devices.find(({ path }) => path === device.path);
  if (byPath !== undefined && uuids.length === 0) return byPath;
  if (text !== undefined) return findDevice(point, text);
  throw new AgentError('DEVICE_NOT_FOUND', `The recovery point ${point.id} has no device ${device.path}`, {
    hint: `choose one of its devices: ${point.devices.map(({ path }) => path).join(', ')}`,
  });
}

function partitionsNamed(point: Point, uuid: string | undefined): PointDevice[] {
  return point.devices.filter((each) => isDeviceNamed(each, `PARTUUID=${uuid ?? ''}`));
}
