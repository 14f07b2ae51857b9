/**
 * Identifies the device of a recovery point; pure. A filesystem UUID is not sufficient: clones and snapshots have the
 * UUID of their origin, and the kernel may number disks in another order. Points record an `identity` from the
 * hardware, device-mapper or the file of a loop device (docs/formats/vault.md, "Points"). Points of the first
 * versions and some devices have none; then only the path is known. A name that was seen under one path only is one
 * device. Otherwise the device is reported as not clear.
 */
import type { Point, PointDevice } from './point.ts';

export interface IdentifiedDevice {
  /** Equal for the same device with the same filesystem of the same machine. */
  readonly key: string;
  /** The paths at which devices of this name were seen, if it is not clear which of them this one is. */
  readonly unclear: readonly string[] | undefined;
}

interface Sightings {
  /** Paths by recorded identity. */
  readonly recorded: Map<string, Set<string>>;
  /** Paths of points without a recorded identity. */
  readonly paths: Set<string>;
}

export class DeviceIdentities {
  readonly #seen = new Map<string, Sightings>();

  /** `points` must be all points of the vault, so that every device of a name is known. */
  constructor(points: readonly Point[]) {
    for (const point of points) for (const device of point.devices) this.#see(nameOf(point, device), device);
  }

  /** `device` must be a device of `point`, and `point` one of the given points. */
  of(point: Point, device: PointDevice): IdentifiedDevice {
    const name = nameOf(point, device);
    const { recorded, paths } = this.#seen.get(name) ?? this.#see(name, device);
    const { identity, path } = device;
    if (identity !== undefined) return { key: JSON.stringify([name, identity]), unclear: undefined };
    const [only, another] = recorded;
    const everywhere = new Set([...paths, ...[...recorded.values()].flatMap((each) => [...each])]);
    if (another !== undefined || everywhere.size > 1)
      return { key: JSON.stringify([name, null, path]), unclear: [...everywhere].sort() };
    return {
      key: JSON.stringify(only === undefined ? [name, null, path] : [name, only[0]]),
      unclear: undefined,
    };
  }

  #see(name: string, { identity, path }: PointDevice): Sightings {
    let seen = this.#seen.get(name);
    if (seen === undefined) this.#seen.set(name, (seen = { recorded: new Map(), paths: new Set() }));
    if (identity === undefined) {
      seen.paths.add(path);
      return seen;
    }
    const where = seen.recorded.get(identity);
    if (where === undefined) seen.recorded.set(identity, new Set([path]));
    else where.add(path);
    return seen;
  }
}

/**
 * Uses the machine's ID and name, because clones share an ID. If a machine is renamed, more points are kept. A device
 * that was formatted again counts as another one: points of its old content are not displaced.
 */
function nameOf({ machine }: Point, { filesystem, partition, path }: PointDevice): string {
  const uuids = [filesystem?.uuid ?? '', partition?.uuid ?? ''];
  return JSON.stringify([machine.id, machine.name, ...(uuids.join('') === '' ? ['', path] : uuids)]);
}
