/**
 * The eBPF tracker: programs in the kernel mark the blocks that are written (programs/), and this process takes the
 * identity. Maps and programs are pinned, so that tracking continues without the process. The next process continues the
 * epoch if nothing has changed; otherwise it says what differs. Described in docs/formats/tracking.md.
 */
import { readdirSync, readFileSync } from 'node:fs';
import pLimit from 'p-limit';
import type { Bitmap } from '../../base/bitmap.ts';
import { AgentError, toAgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import type { Generation } from '../generation.ts';
import type {
  DeviceNumbers,
  Epoch,
  Remains,
  Taken,
  TrackedDevice,
  TrackedEpoch,
  Tracker,
  TrackingState,
} from '../tracker.ts';
import { defaultPinDirectory, Installation } from './installation.ts';
import { defaultBudget, shapeFor, type Style } from './layout.ts';
import { lostByCounters, lostByNesting, type SkippedBefore } from './loss.ts';
import {
  checkDescribed,
  type LiveDevice,
  identityDifference,
  deviceIdentity,
  readLiveDevice,
} from '../device-identity.ts';
import type { PinLock } from './pin-lock.ts';
import type { ProgramSet } from './program-set.ts';
import { TrackedDeviceMap, deviceMapPin, unpinDeviceMap } from './tracked-device-map.ts';
import type { TracepointName } from './kernel-types.ts';
import { explainRefusal } from './support.ts';

export interface EbpfTrackerOptions {
  /** A directory on a bpffs, which is mounted if there is none. Default /sys/fs/bpf/dattod. */
  readonly pinDirectory?: string;
  /** The lock of that directory, if the caller keeps it for longer than the tracker is open. */
  readonly lock?: PinLock;
  /** Bytes of kernel memory for the map of one device. Default 64 MiB. */
  readonly budget?: number;
  /** Default: bits if the kernel has an atomic OR. */
  readonly style?: Style;
  /** Entries for writes in flight; for tests. */
  readonly inFlightEntries?: number;
}

export class EbpfTracker implements Tracker {
  readonly kind = 'ebpf';
  readonly #installation: Installation;
  readonly #budget: number;
  readonly #bootId: string;
  readonly #deviceMaps = new Map<string, TrackedDeviceMap>();
  /** Why a device's pinned map could not be opened. */
  readonly #unusable = new Map<string, string>();
  #closed = false;
  /** Changes of the set of tracked devices happen one after the other. */
  readonly #oneByOne = pLimit(1);

  private constructor(installation: Installation, budget: number) {
    this.#installation = installation;
    this.#budget = budget;
    this.#bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  }

  /** Opens the tracker. Throws NO_PERMISSION, NOT_SUPPORTED, or DEVICE_BUSY if another process uses the same pins. */
  static async open(options: EbpfTrackerOptions = {}): Promise<EbpfTracker> {
    const { pinDirectory = defaultPinDirectory, budget = defaultBudget, ...rest } = options;
    const installation = await explained(() => Installation.open({ directory: pinDirectory, ...rest }));
    const tracker = new EbpfTracker(installation, budget);
    tracker.#openRanges();
    return tracker;
  }

  /**
   * Returns the devices with a map, also those that an earlier process began to track and that this process was not
   * asked for yet.
   */
  tracked(): {
    readonly path: string;
    readonly major: number;
    readonly minor: number;
    readonly size: number;
  }[] {
    return [...this.#deviceMaps.values()].map(({ description: { path, marks: identity } }) => ({
      path,
      major: identity.major,
      minor: identity.minor,
      size: identity.size,
    }));
  }

  track(device: TrackedDevice): Promise<TrackedEpoch & { readonly doubt: string | undefined }> {
    return this.#oneByOne(() => explained(() => this.#track(device)));
  }

  take(device: TrackedDevice): Promise<Taken> {
    return Promise.resolve().then(() => {
      const map = this.#deviceMaps.get(keyOf(device));
      if (map === undefined) throw ended(device, this.#unusable.get(keyOf(device)) ?? 'it is not tracked');
      const doubt = this.#doubt(map, device);
      if (doubt !== undefined) throw ended(device, doubt);
      const { dirty, forget } = map.take(this.#inFlight(map));
      // Losses between the check above and the reading of the marks count as well.
      const late = this.#doubt(map, device);
      if (late !== undefined) throw ended(device, late);
      return { ...tied(map), dirty, commit: forget };
    });
  }

  state(device: TrackedDevice): TrackingState | undefined {
    const map = this.#deviceMaps.get(keyOf(device));
    if (map === undefined) return undefined;
    return {
      kind: 'ebpf',
      epoch: map.description.epoch,
      unit: map.description.shape.unit,
      memory: map.memory,
      pinned: true,
      dirtyBytes: map.look(this.#inFlight(map)).bytes(),
    };
  }

  doubt(device: TrackedDevice): string | undefined {
    const map = this.#deviceMaps.get(keyOf(device));
    return map === undefined ? this.#unusable.get(keyOf(device)) : this.#doubt(map, device);
  }

  remains(device: DeviceNumbers): Remains | undefined {
    const map = this.#deviceMaps.get(keyOf(device));
    if (map === undefined) return undefined;
    const dirty = map.look(this.#inFlight(map));
    const { marks: identity } = map.description;
    // Both checks come after the map is read, so that they include all losses before the reading.
    return { ...tied(map), uuid: identity.uuid, dirty, gone: this.#gone(map), lost: this.#lost(map) };
  }

  resume(
    device: TrackedDevice,
    from: { readonly epoch: Epoch; readonly generation: Generation | undefined; readonly dirty: Bitmap },
  ): Promise<void> {
    return this.#oneByOne(() => {
      const map = this.#deviceMaps.get(keyOf(device));
      const doubt = map === undefined ? 'it is not tracked' : this.#doubt(map, device);
      if (map === undefined || doubt !== undefined) throw ended(device, doubt ?? '');
      map.mark(from.dirty.extents());
      map.continueEpoch(from.epoch, from.generation);
    });
  }

  mark(device: DeviceNumbers, extents: Iterable<Extent>): Promise<void> {
    return this.#oneByOne(() => {
      this.#deviceMaps.get(keyOf(device))?.mark(extents);
    });
  }

  untrack(device: DeviceNumbers): Promise<void> {
    return this.#oneByOne(async () => {
      const key = keyOf(device);
      const map = this.#deviceMaps.get(key);
      this.#unusable.delete(key);
      await unpinDeviceMap(this.#installation.directory, device.major, device.minor);
      if (map === undefined) return;
      this.#installation.removeRange(map.disk, map.id, map.description.set);
      this.#deviceMaps.delete(key);
      map.close();
      if (this.#deviceMaps.size === 0) await this.#installation.detach();
    });
  }

  /** Ends all tracking: removes programs, maps and pins. Closes the tracker. */
  async stop(): Promise<void> {
    await this.#oneByOne(async () => {
      if (this.#closed) return;
      this.#closeRanges();
      await this.#installation.remove();
      this.#closed = true;
    });
  }

  async close(): Promise<void> {
    await this.#oneByOne(() => {
      if (this.#closed) return;
      this.#closed = true;
      this.#closeRanges();
      this.#installation.close();
    });
  }

  async #track(device: TrackedDevice): Promise<TrackedEpoch & { doubt: string | undefined }> {
    const key = keyOf(device);
    const live = readLiveDevice(device.major, device.minor);
    checkDescribed(device, live);
    if (live.handedDownBy !== undefined)
      throw new AgentError(
        'NOT_SUPPORTED',
        `writes to ${live.handedDownBy}, which lies on ${device.path}, cannot be seen there`,
        { hint: `back ${live.handedDownBy} up instead` },
      );
    const earlier = this.#deviceMaps.get(key);
    const doubt =
      earlier === undefined
        ? (this.#unusable.get(key) ?? this.#installation.doubt)
        : this.#doubt(earlier, device, live);
    if (earlier !== undefined && doubt === undefined) return { ...tied(earlier), doubt };
    const map = await this.#begin(device, live, earlier);
    this.#deviceMaps.set(key, map);
    this.#unusable.delete(key);
    return { ...tied(map), doubt };
  }

  /** Begins a new epoch. The map of the earlier one is replaced. */
  async #begin(
    device: TrackedDevice,
    live: LiveDevice,
    earlier: TrackedDeviceMap | undefined,
  ): Promise<TrackedDeviceMap> {
    const { directory, style } = this.#installation;
    const name = live.byBio ? 'bio' : 'request';
    const set = await this.#installation.ensureSet(name);
    const map = TrackedDeviceMap.create(
      shapeFor(live.size, style, this.#budget),
      device.path,
      deviceIdentity(device, live, this.#bootId),
      name,
      set.ids,
      this.#skipped(set),
    );
    try {
      await unpinDeviceMap(directory, device.major, device.minor);
      if (earlier !== undefined && earlier.disk !== map.disk)
        this.#installation.removeRange(earlier.disk, earlier.id, earlier.description.set);
      const keep = new Set([...this.#deviceMaps.values()].map((each) => each.id));
      this.#installation.addRange(map.disk, map.fd, earlier?.id, keep);
      map.pin(deviceMapPin(directory, device.major, device.minor));
    } catch (thrown) {
      this.#installation.removeRange(map.disk, map.id, name);
      map.close();
      throw thrown;
    }
    earlier?.close();
    return map;
  }

  /** Returns why writes to the device may have been missed since its epoch began; undefined if none were. */
  #doubt(map: TrackedDeviceMap, device: TrackedDevice, known?: LiveDevice): string | undefined {
    const { marks: identity } = map.description;
    let live: LiveDevice;
    try {
      live = known ?? readLiveDevice(device.major, device.minor);
    } catch (thrown) {
      return toAgentError(thrown).message;
    }
    const difference = identityDifference(identity, deviceIdentity(device, live, this.#bootId));
    if (difference !== undefined) return difference;
    if (live.handedDownBy !== undefined)
      return `writes to ${live.handedDownBy}, which lies on it, are not seen`;
    if (device.size !== live.size) return `its size in bytes is ${live.size}, not ${device.size}`;
    return this.#lost(map);
  }

  /** Returns why the device that has the numbers of the map now is not the device of the map. */
  #gone(map: TrackedDeviceMap): string | undefined {
    const { path, marks: identity } = map.description;
    try {
      const live = readLiveDevice(identity.major, identity.minor);
      // The UUID is not in sysfs. The caller checks if it is another filesystem.
      return identityDifference(identity, deviceIdentity({ ...identity, path }, live, this.#bootId));
    } catch (thrown) {
      return toAgentError(thrown).message;
    }
  }

  /** Returns why writes may have been missed, also for a device that is gone. */
  #lost(map: TrackedDeviceMap): string | undefined {
    const { set: name, programs, skipped } = map.description;
    if (!this.#installation.hasRange(map.disk, map.id)) return 'the programs do not know its map any more';
    const set = this.#installation.attachedSet(name);
    if (set === undefined) return 'a program that marks its writes was detached';
    if (set.ids.join() !== programs.join())
      return `the programs that mark its writes were replaced (${programs.join(' ')} by ${set.ids.join(' ')})`;
    for (const [tracepoint, now] of this.#skipped(set)) {
      const before = skipped[tracepoint];
      const base = { misses: (before?.misses ?? []).map(BigInt), deep: BigInt(before?.deep ?? 0) };
      const lost = lostByNesting(tracepoint, base, now);
      if (lost !== undefined) return lost;
    }
    return lostByCounters(map.counters());
  }

  #skipped(set: ProgramSet): Map<TracepointName, SkippedBefore> {
    const all = new Map<TracepointName, SkippedBefore>();
    for (const [tracepoint, misses] of set.misses())
      all.set(tracepoint, { misses, deep: this.#installation.deepNestings(tracepoint) });
    return all;
  }

  /** Call this before reading the marks: an entry is removed only after its marks are set. */
  #inFlight(map: TrackedDeviceMap): ReturnType<Installation['inFlight']> {
    return this.#installation.inFlight(map.description.set);
  }

  /** Opens the maps that earlier processes pinned. */
  #openRanges(): void {
    for (const name of readdirSync(this.#installation.directory)) {
      const numbers = /^range-(\d+):(\d+)$/.exec(name);
      if (numbers === null) continue;
      const [major, minor] = [Number(numbers[1]), Number(numbers[2])];
      const map = TrackedDeviceMap.open(deviceMapPin(this.#installation.directory, major, minor));
      if (map === undefined) continue;
      if (typeof map === 'string') this.#unusable.set(`${major}:${minor}`, map);
      else this.#deviceMaps.set(`${major}:${minor}`, map);
    }
  }

  #closeRanges(): void {
    for (const map of this.#deviceMaps.values()) map.close();
    this.#deviceMaps.clear();
  }
}

function tied({ description: { epoch }, generation }: TrackedDeviceMap): TrackedEpoch {
  return { epoch, generation };
}

function keyOf(device: { readonly major: number; readonly minor: number }): string {
  return `${device.major}:${device.minor}`;
}

function ended(device: TrackedDevice, reason: string): AgentError {
  return new AgentError('EPOCH_ENDED', `${device.path}: writes may have been missed: ${reason}`, {
    hint: 'the next backup reads all used blocks again, and tracking begins again with it',
  });
}

/** Turns the kernel's refusals into errors that say what would help. */
async function explained<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw explainRefusal(thrown);
  }
}
