/** How people name recovery points and devices; pure. */
import { AgentError } from '../../base/errors.ts';
import { DeviceIdentities } from './identity.ts';
import type { Point, PointDevice } from './point.ts';
import { type TimeFacts, believedTime, clockTolerance, isAhead, storedTime } from './times.ts';

export interface PointFilter {
  /** Host name or machine id. */
  readonly machine?: string | undefined;
  /** Path, filesystem UUID, partition UUID or label. */
  readonly device?: string | undefined;
}

const shortest = 4;

/** Those of the ids that begin with `text`. Throws BAD_USAGE for what is no beginning of an id, or a short one. */
export function idsBeginningWith(ids: readonly string[], text: string): string[] {
  const digits = text.toLowerCase();
  if (!/^[0-9a-f]{1,32}$/.test(digits))
    throw new AgentError('BAD_USAGE', `"${text}" names no recovery point`, {
      hint: 'give its id or the first digits of it, latest, or latest:DEVICE',
    });
  if (digits.length < shortest)
    throw new AgentError(
      'BAD_USAGE',
      `"${text}" has ${digits.length} digits; at least ${shortest} are needed`,
      { hint: 'dattocli points lists the points with enough of them' },
    );
  return ids.filter((id) => id.startsWith(digits));
}

export function isLatest(text: string): boolean {
  return text === 'latest' || text.startsWith('latest:');
}

/**
 * The one that finished last, of one machine: undefined where there is none. Points whose time is not believed do not
 * count as long as there are others. Throws POINT_AMBIGUOUS where points of several machines come into question, or of
 * several devices that have the name, BAD_USAGE where nothing follows `latest:`.
 */
export function latestOf(
  points: readonly Point[],
  text: string,
  filter: PointFilter,
  times: TimeFacts = { now: Date.now() },
): Point | undefined {
  const device = text.includes(':') ? text.slice(text.indexOf(':') + 1) : undefined;
  if (device === '') throw new AgentError('BAD_USAGE', '"latest:" names no device');
  const candidates = filterPoints(filterPoints(points, { device }), filter);
  const machines = new Map(candidates.map(({ machine }) => [`${machine.id} ${machine.name}`, machine.name]));
  if (machines.size > 1)
    throw new AgentError(
      'POINT_AMBIGUOUS',
      `${text} may mean a recovery point of each of ${[...machines.values()].join(', ')}`,
      { hint: 'say which machine, or give the id of the point' },
    );
  const inOrder = candidates
    .map((point) => ({ point, time: believedTime(point, times.stored) }))
    .sort((a, b) => a.time - b.time || (a.point.id < b.point.id ? -1 : 1))
    .map(({ point }) => point);
  for (const name of [device, filter.device])
    if (name !== undefined) refuseSeveral(points, inOrder, name, text);
  const believed = inOrder.filter((point) => !isAhead(point, times.stored));
  // The clock here may be wrong (a rescue system), so it says nothing about points whose arrival the store knows. Without
  // that, points in the future do not count; if all are, it is the clock here that is wrong.
  const present = believed.filter(
    (point) =>
      storedTime(point.id, times.stored) !== undefined ||
      Date.parse(point.finished) <= times.now + clockTolerance,
  );
  return present.at(-1) ?? believed.at(-1) ?? inOrder.at(-1);
}

/**
 * Throws POINT_AMBIGUOUS if a UUID or label means several devices, with the last point of each. A path means whatever was
 * there. `candidates` by time.
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
    `${text}: ${list.length} devices are called ${name}: ${list.join(', ')}`,
    { hint: 'Give the id of the point; dattocli points lists them' },
  );
}

/** Formatted again in the meantime, or not. Without a recorded identity a path is all there is. */
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

/** By path, filesystem UUID (in any case), label or partition UUID; `UUID=` and the like as in fstab. */
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

/** The devices of the point that `text` names: one. Throws DEVICE_NOT_FOUND, DEVICE_AMBIGUOUS. */
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
        hint: `it has ${paths}`,
      },
    );
  if (another !== undefined)
    throw new AgentError(
      'DEVICE_AMBIGUOUS',
      text === undefined
        ? `The recovery point ${point.id} has ${found.length} devices`
        : `"${text}" means ${found.length} devices of the recovery point ${point.id}`,
      { hint: `say which of ${paths}` },
    );
  return device;
}
