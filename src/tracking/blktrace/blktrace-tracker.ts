/**
 * The tracker for kernels without BTF. The kernel's own block tracer (blktrace) writes a record of each write into
 * buffers; a thread of this process reads the records and keeps the maps. docs/formats/tracking-blktrace.md says which
 * parts are lossless, and which events end the epoch.
 *
 * The maps live in this process and end with it.
 */
import { mkdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import pLimit from 'p-limit';
import { Bitmap } from '../../base/bitmap.ts';
import { KiB, MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { freshUuid } from '../../base/random.ts';
import { onlineProcessors } from '../../linux/affinity.ts';
import { type Debugfs, openDebugfs } from '../../linux/debugfs.ts';
import { bootId } from '../../linux/process.ts';
import { type Generation, newGeneration } from '../generation.ts';
import type { Epoch, Taken, TrackedDevice, TrackedEpoch, Tracker, TrackingState } from '../tracker.ts';
import {
  checkDescribed,
  identityDifference,
  type DeviceIdentity,
  deviceIdentity,
  readLiveDevice,
} from '../device-identity.ts';
import { changedIdentity } from './identity.ts';
import { TraceRecords } from './leftover.ts';
import { inspectQueue, type TracedQueue } from './queue.ts';
import { ReaderThread } from './reader-thread.ts';
import { explainDebugfs } from './support.ts';
import { beginTrace, endTrace, type Trace } from './trace.ts';

/** Smallest unit, and the most bytes that the two maps of a device may take. */
const smallestUnit = 4 * KiB;
const mostMaps = 64 * MiB;

/**
 * Delay in ms before removing a trace that another process stopped. The kernel removes any trace on the disk. That
 * process may be about to replace ours, so removing ours at once could destroy its new trace.
 */
const othersMs = 2000;

export interface BlktraceOptions {
  /** A directory on a tmpfs for the records of our traces. */
  readonly runDirectory: string;
  /** Bytes of the kernel's buffers for each processor and disk. Default: 64 MiB in all, 512 KiB to 2 MiB each. */
  readonly relayBytes?: number;
}

interface Disk {
  readonly key: string;
  readonly queue: TracedQueue;
  readonly trace: Trace;
  readonly devices: Set<Tracked>;
}

interface Tracked {
  readonly key: string;
  readonly device: TrackedDevice;
  /** The identity of the device. */
  readonly identity: DeviceIdentity;
  readonly disk: Disk;
  readonly epoch: Epoch;
  generation: Generation;
  readonly unit: number;
  readonly gauges: Int32Array<SharedArrayBuffer>;
  /** Why the epoch ended. */
  ended: string | undefined;
}

export class BlktraceTracker implements Tracker {
  readonly kind = 'blktrace';
  readonly #options: BlktraceOptions;
  readonly #records: TraceRecords;
  readonly #disks = new Map<string, Disk>();
  readonly #devices = new Map<string, Tracked>();
  #debugfs: Debugfs | undefined;
  #thread: ReaderThread | undefined;
  /** Changes of the set of traces happen one after the other. */
  readonly #inTurn = pLimit(1);

  constructor(options: BlktraceOptions) {
    this.#options = options;
    this.#records = new TraceRecords(options.runDirectory);
  }

  track(device: TrackedDevice): Promise<TrackedEpoch & { readonly doubt: string | undefined }> {
    return this.#inTurn(async () => {
      const key = keyOf(device);
      const existing = this.#devices.get(key);
      const doubt = existing && this.#doubt(existing, device);
      if (existing !== undefined && doubt === undefined)
        return { epoch: existing.epoch, generation: existing.generation, doubt };
      if (existing !== undefined) await this.#drop(existing);
      const disk = await this.#disk(device.partition ?? device, device.path);
      try {
        const { epoch, generation } = await this.#add(key, device, disk);
        const earlier = disk.trace.earlier
          ? 'the daemon that tracked it before has ended, and its map with it'
          : undefined;
        return { epoch, generation, doubt: doubt ?? earlier };
      } catch (thrown) {
        if (disk.devices.size === 0) await this.#closeDisk(disk);
        throw thrown;
      }
    });
  }

  async take(device: TrackedDevice, options: { readonly frozen?: boolean } = {}): Promise<Taken> {
    const tracked = this.#devices.get(keyOf(device));
    if (tracked === undefined) throw ended(device, 'it is not tracked');
    const doubt = this.#doubt(tracked, device);
    if (doubt !== undefined) throw ended(device, doubt);
    const { disk, key, epoch, generation } = tracked;
    const settled = options.frozen === true;
    const { generation: take, map } = await this.#reader
      .call('take', { disk: disk.key, key, settled })
      .catch((thrown: unknown) => {
        throw ended(
          device,
          tracked.ended ?? (thrown instanceof Error ? thrown.message : String(thrown)),
          thrown,
        );
      });
    // The thread does not touch this map until the commit.
    const dirty = new Bitmap(device.size, tracked.unit, map).clone();
    return {
      epoch,
      generation,
      dirty,
      commit: (next) => {
        if (tracked.ended !== undefined) return false;
        tracked.generation = next;
        this.#thread?.commit(disk.key, key, take);
        return true;
      },
    };
  }

  state(device: TrackedDevice): TrackingState | undefined {
    const tracked = this.#devices.get(keyOf(device));
    if (tracked === undefined || tracked.ended !== undefined) return undefined;
    const { epoch, unit, gauges, disk } = tracked;
    const units = Math.ceil(device.size / unit);
    const relay = disk.trace.capacity * onlineProcessors().length;
    return {
      kind: this.kind,
      epoch,
      unit,
      memory: 2 * Math.ceil(units / 8) + Atomics.load(gauges, 1) * KiB + Math.ceil(relay / disk.devices.size),
      pinned: false,
      dirtyBytes: Math.min(Atomics.load(gauges, 0) * unit, device.size),
    };
  }

  untrack(device: TrackedDevice): Promise<void> {
    return this.#inTurn(async () => {
      const tracked = this.#devices.get(keyOf(device));
      if (tracked !== undefined) await this.#drop(tracked);
    });
  }

  /** Ends all traces: no process would read them any more. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      for (const disk of [...this.#disks.values()]) await this.#closeDisk(disk);
      for (const tracked of this.#devices.values()) tracked.ended ??= 'the tracker was closed';
      this.#devices.clear();
      await this.#thread?.close();
      this.#thread = undefined;
      this.#debugfs?.close();
      this.#debugfs = undefined;
    });
  }

  #doubt({ ended: reason, disk, identity }: Tracked, device: TrackedDevice): string | undefined {
    if (reason !== undefined) return reason;
    // Compares the present facts in sysfs and the caller's description with those of the epoch's beginning.
    return (
      identityDifference(identity, {
        ...device,
        diskSequence: device.diskSequence ?? identity.diskSequence,
        nodes: identity.nodes,
        bootId: identity.bootId,
      }) ?? changedIdentity(device, identity, disk.queue.following === 'bios')
    );
  }

  get #reader(): ReaderThread {
    this.#thread ??= new ReaderThread({
      lost: (disk, key, reason) => this.#lost(disk, key, reason),
      ended: (reason) => {
        this.#thread = undefined;
        for (const disk of [...this.#disks.keys()]) this.#lost(disk, undefined, reason);
      },
    });
    return this.#thread;
  }

  /** Returns the trace of the disk. A queue has one trace, so all tracked devices on the disk share it. */
  async #disk(numbers: { major: number; minor: number }, about: string): Promise<Disk> {
    const key = keyOf(numbers);
    const existing = this.#disks.get(key);
    if (existing !== undefined) return existing;
    await mkdir(this.#options.runDirectory, { recursive: true });
    this.#debugfs ??= await openDebugfs(this.#options.runDirectory).catch((thrown: unknown) => {
      throw explainDebugfs(thrown);
    });
    const queue = await inspectQueue(numbers, about);
    const capacity = this.#options.relayBytes ?? defaultRelayBytes();
    const debugfs = this.#debugfs.path;
    const trace = await beginTrace(queue, {
      disk: key,
      debugfs,
      records: this.#records,
      capacity,
    });
    const disk: Disk = { key, queue, trace, devices: new Set() };
    try {
      const { path: name, following } = queue;
      await this.#reader.call('openDisk', { disk: key, name, following, ...trace });
    } catch (thrown) {
      await endTrace(queue, key, trace.folder, this.#records);
      throw thrown;
    }
    this.#disks.set(key, disk);
    return disk;
  }

  async #add(key: string, device: TrackedDevice, disk: Disk): Promise<Tracked> {
    const live = readLiveDevice(device.major, device.minor);
    checkDescribed(device, live);
    const identity = deviceIdentity(device, live, await bootId());
    const { size } = device;
    const unit = unitFor(size);
    const maps = [new Bitmap(size, unit).buffer, new Bitmap(size, unit).buffer] as const;
    const gauges = new Int32Array(new SharedArrayBuffer(8));
    const epoch = { id: freshUuid(), since: Date.now() };
    const generation = newGeneration();
    const tracked: Tracked = {
      ...{ key, device, identity, disk, epoch, generation, unit, gauges, ended: undefined },
    };
    await this.#reader.call('add', {
      disk: disk.key,
      key,
      device,
      identity,
      unit,
      maps,
      gauges: gauges.buffer,
    });
    this.#devices.set(key, tracked);
    disk.devices.add(tracked);
    return tracked;
  }

  async #drop(tracked: Tracked): Promise<void> {
    const { disk, key } = tracked;
    tracked.ended ??= 'it was untracked';
    this.#devices.delete(key);
    disk.devices.delete(tracked);
    if (this.#disks.get(disk.key) !== disk) return;
    if (disk.devices.size === 0) await this.#closeDisk(disk);
    else await this.#thread?.call('remove', { disk: disk.key, key });
  }

  async #closeDisk(disk: Disk): Promise<void> {
    this.#disks.delete(disk.key);
    // A thread that has ended has no files open.
    await this.#thread?.call('closeDisk', { disk: disk.key }).catch(() => undefined);
    await endTrace(disk.queue, disk.key, disk.trace.folder, this.#records);
  }

  #lost(diskKey: string, key: string | undefined, reason: string): void {
    const disk = this.#disks.get(diskKey);
    if (disk === undefined) return;
    for (const tracked of [...disk.devices]) {
      if (key !== undefined && tracked.key !== key) continue;
      tracked.ended ??= reason;
      disk.devices.delete(tracked);
    }
    if (disk.devices.size > 0) return;
    this.#disks.delete(diskKey);
    void this.#inTurn(async () => {
      if (key !== undefined) await this.#thread?.call('closeDisk', { disk: diskKey });
      else await sleep(othersMs);
      // A trace that was begun again in the meantime has other files.
      await endTrace(disk.queue, diskKey, disk.trace.folder, this.#records);
    }).catch(() => undefined);
  }
}

function keyOf({ major, minor }: { readonly major: number; readonly minor: number }): string {
  return `${major}:${minor}`;
}

function ended({ path }: TrackedDevice, reason: string, cause?: unknown): AgentError {
  return new AgentError('EPOCH_ENDED', `${path}: writes may have been missed: ${reason}`, {
    hint: 'the next backup compares all used blocks by their fingerprints, and a new epoch begins',
    cause,
  });
}

function unitFor(size: number): number {
  let unit = smallestUnit;
  while ((2 * size) / unit / 8 > mostMaps) unit *= 2;
  return unit;
}

function defaultRelayBytes(): number {
  return Math.min(2 * MiB, Math.max(512 * KiB, Math.floor((64 * MiB) / onlineProcessors().length)));
}
