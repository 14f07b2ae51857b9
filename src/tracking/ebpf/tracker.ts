/**
 * The eBPF tracker: programs in the kernel mark the blocks that are written (programs/), and this process takes the
 * marks. Maps and programs are pinned, so that tracking continues without the process. The next process continues the
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
import { checkDescribed, type LiveDevice, markDifference, marksOf, readLiveDevice } from './marks.ts';
import type { PinLock } from './pin-lock.ts';
import type { ProgramSet } from './program-set.ts';
import { Range, rangePin, unpinRange } from './range.ts';
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
  readonly #ranges = new Map<string, Range>();
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
    return [...this.#ranges.values()].map(({ description: { path, marks } }) => ({
      path,
      major: marks.major,
      minor: marks.minor,
      size: marks.size,
    }));
  }

  track(device: TrackedDevice): Promise<TrackedEpoch & { readonly doubt: string | undefined }> {
    return this.#oneByOne(() => explained(() => this.#track(device)));
  }

  take(device: TrackedDevice): Promise<Taken> {
    return Promise.resolve().then(() => {
      const range = this.#ranges.get(keyOf(device));
      if (range === undefined) throw ended(device, this.#unusable.get(keyOf(device)) ?? 'it is not tracked');
      const doubt = this.#doubt(range, device);
      if (doubt !== undefined) throw ended(device, doubt);
      const { dirty, forget } = range.take(this.#inFlight(range));
      // Losses between the check above and the reading of the marks count as well.
      const late = this.#doubt(range, device);
      if (late !== undefined) throw ended(device, late);
      return { ...tied(range), dirty, commit: forget };
    });
  }

  state(device: TrackedDevice): TrackingState | undefined {
    const range = this.#ranges.get(keyOf(device));
    if (range === undefined) return undefined;
    return {
      kind: 'ebpf',
      epoch: range.description.epoch,
      unit: range.description.shape.unit,
      memory: range.memory,
      pinned: true,
      dirtyBytes: range.look(this.#inFlight(range)).bytes(),
    };
  }

  doubt(device: TrackedDevice): string | undefined {
    const range = this.#ranges.get(keyOf(device));
    return range === undefined ? this.#unusable.get(keyOf(device)) : this.#doubt(range, device);
  }

  remains(device: DeviceNumbers): Remains | undefined {
    const range = this.#ranges.get(keyOf(device));
    if (range === undefined) return undefined;
    const dirty = range.look(this.#inFlight(range));
    const { marks } = range.description;
    // Both checks come after the map is read, so that they include all losses before the reading.
    return { ...tied(range), uuid: marks.uuid, dirty, gone: this.#gone(range), lost: this.#lost(range) };
  }

  resume(
    device: TrackedDevice,
    from: { readonly epoch: Epoch; readonly generation: Generation | undefined; readonly dirty: Bitmap },
  ): Promise<void> {
    return this.#oneByOne(() => {
      const range = this.#ranges.get(keyOf(device));
      const doubt = range === undefined ? 'it is not tracked' : this.#doubt(range, device);
      if (range === undefined || doubt !== undefined) throw ended(device, doubt ?? '');
      range.mark(from.dirty.extents());
      range.continueEpoch(from.epoch, from.generation);
    });
  }

  mark(device: DeviceNumbers, extents: Iterable<Extent>): Promise<void> {
    return this.#oneByOne(() => {
      this.#ranges.get(keyOf(device))?.mark(extents);
    });
  }

  untrack(device: DeviceNumbers): Promise<void> {
    return this.#oneByOne(async () => {
      const key = keyOf(device);
      const range = this.#ranges.get(key);
      this.#unusable.delete(key);
      await unpinRange(this.#installation.directory, device.major, device.minor);
      if (range === undefined) return;
      this.#installation.removeRange(range.disk, range.id, range.description.set);
      this.#ranges.delete(key);
      range.close();
      if (this.#ranges.size === 0) await this.#installation.detach();
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
    const earlier = this.#ranges.get(key);
    const doubt =
      earlier === undefined
        ? (this.#unusable.get(key) ?? this.#installation.doubt)
        : this.#doubt(earlier, device, live);
    if (earlier !== undefined && doubt === undefined) return { ...tied(earlier), doubt };
    const range = await this.#begin(device, live, earlier);
    this.#ranges.set(key, range);
    this.#unusable.delete(key);
    return { ...tied(range), doubt };
  }

  /** Begins a new epoch. The map of the earlier one is replaced. */
  async #begin(device: TrackedDevice, live: LiveDevice, earlier: Range | undefined): Promise<Range> {
    const { directory, style } = this.#installation;
    const name = live.byBio ? 'bio' : 'request';
    const set = await this.#installation.ensureSet(name);
    const range = Range.create(
      shapeFor(live.size, style, this.#budget),
      device.path,
      marksOf(device, live, this.#bootId),
      name,
      set.ids,
      this.#skipped(set),
    );
    try {
      await unpinRange(directory, device.major, device.minor);
      if (earlier !== undefined && earlier.disk !== range.disk)
        this.#installation.removeRange(earlier.disk, earlier.id, earlier.description.set);
      const keep = new Set([...this.#ranges.values()].map((each) => each.id));
      this.#installation.addRange(range.disk, range.fd, earlier?.id, keep);
      range.pin(rangePin(directory, device.major, device.minor));
    } catch (thrown) {
      this.#installation.removeRange(range.disk, range.id, name);
      range.close();
      throw thrown;
    }
    earlier?.close();
    return range;
  }

  /** Returns why writes to the device may have been missed since its epoch began; undefined if none were. */
  #doubt(range: Range, device: TrackedDevice, known?: LiveDevice): string | undefined {
    const { marks } = range.description;
    let live: LiveDevice;
    try {
      live = known ?? readLiveDevice(device.major, device.minor);
    } catch (thrown) {
      return toAgentError(thrown).message;
    }
    const difference = markDifference(marks, marksOf(device, live, this.#bootId));
    if (difference !== undefined) return difference;
    if (live.handedDownBy !== undefined)
      return `writes to ${live.handedDownBy}, which lies on it, are not seen`;
    if (device.size !== live.size) return `its size in bytes is ${live.size}, not ${device.size}`;
    return this.#lost(range);
  }

  /** Returns why the device that has the numbers of the map now is not the device of the map. */
  #gone(range: Range): string | undefined {
    const { path, marks } = range.description;
    try {
      const live = readLiveDevice(marks.major, marks.minor);
      // The UUID is not in sysfs. The caller checks if it is another filesystem.
      return markDifference(marks, marksOf({ ...marks, path }, live, this.#bootId));
    } catch (thrown) {
      return toAgentError(thrown).message;
    }
  }

  /** Returns why writes may have been missed, also for a device that is gone. */
  #lost(range: Range): string | undefined {
    const { set: name, programs, skipped } = range.description;
    if (!this.#installation.hasRange(range.disk, range.id))
      return 'the programs do not know its map any more';
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
    return lostByCounters(range.counters());
  }

  #skipped(set: ProgramSet): Map<TracepointName, SkippedBefore> {
    const all = new Map<TracepointName, SkippedBefore>();
    for (const [tracepoint, misses] of set.misses())
      all.set(tracepoint, { misses, deep: this.#installation.deepNestings(tracepoint) });
    return all;
  }

  /** Call this before reading the marks: an entry is removed only after its marks are set. */
  #inFlight(range: Range): ReturnType<Installation['inFlight']> {
    return this.#installation.inFlight(range.description.set);
  }

  /** Opens the maps that earlier processes pinned. */
  #openRanges(): void {
    for (const name of readdirSync(this.#installation.directory)) {
      const numbers = /^range-(\d+):(\d+)$/.exec(name);
      if (numbers === null) continue;
      const [major, minor] = [Number(numbers[1]), Number(numbers[2])];
      const range = Range.open(rangePin(this.#installation.directory, major, minor));
      if (range === undefined) continue;
      if (typeof range === 'string') this.#unusable.set(`${major}:${minor}`, range);
      else this.#ranges.set(`${major}:${minor}`, range);
    }
  }

  #closeRanges(): void {
    for (const range of this.#ranges.values()) range.close();
    this.#ranges.clear();
  }
}

function tied({ description: { epoch }, generation }: Range): TrackedEpoch {
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
