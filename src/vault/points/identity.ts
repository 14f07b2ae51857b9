/**
 * Which device a recovery point is of; pure. A filesystem UUID does not tell: clones and snapshots bear the UUID of their
 * origin, and the kernel may number disks in another order. Points record what the hardware, device-mapper or the file
 * behind a loop device says of itself (`identity`, docs/formats/vault.md, "Points"); the first versions did not, and not
 * every device has such a thing. Then the path is all there is: as long as a name was seen under one path only, it is one
 * device. Otherwise it is not clear, and that is what is answered.
 */
import type { Point, PointDevice } from './point.ts';

export interface IdentifiedDevice {
  /** Equal for the same device of the same machine, with the same filesystem. */
  readonly key: string;
  /** Where devices of this name were seen, if it is not clear which of them this one is. */
  readonly unclear: readonly string[] | undefined;
}

interface Sightings {
  /** Paths by recorded identity. */
  readonly recorded: Map<string, Set<string>>;
  /** Of points that record none. */
  readonly paths: Set<string>;
}

export class DeviceIdentities {
  readonly #seen = new Map<string, Sightings>();

  /** `points`: all points of the vault, so that every device of one name is known. */
  constructor(points: readonly Point[]) {
    for (const point of points) for (const device of point.devices) this.#see(nameOf(point, device), device);
  }

  /** `device` is one of `point`, which is among those that were given. */
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
 * Machines by id and name: clones share an id, and a machine that got another name only keeps more. A device that was
 * formatted again is another one: points of what was on it before are not displaced.
 */
function nameOf({ machine }: Point, { filesystem, partition, path }: PointDevice): string {
  const uuids = [filesystem?.uuid ?? '', partition?.uuid ?? ''];
  return JSON.stringify([machine.id, machine.name, ...(uuids.join('') === '' ? ['', path] : uuids)]);
}
