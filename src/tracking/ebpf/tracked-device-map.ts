/**
 * One tracked device: its map in the kernel, seen as memory, and its epoch. The layout is in layout.ts. After a
 * restart, the content of the control page decides whether the epoch continues.
 */
import { closeSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Bitmap } from '../../base/bitmap.ts';
import { Descriptor } from '../../base/descriptor.ts';
import type { Extent } from '../../base/extents.ts';
import { freshUuid } from '../../base/random.ts';
import { createMap, mapFlags, mapInfo } from '../../linux/bpf/maps.ts';
import { type MappedMap, mapIntoMemory } from '../../linux/bpf/mapped.ts';
import { openPin, pin } from '../../linux/bpf/pins.ts';
import { fromNumber, type Generation, newGeneration, toNumber } from '../generation.ts';
import type { Epoch } from '../tracker.ts';
import { type Description, readDescription, writeDescription } from './description.ts';
import type { TracepointName } from './kernel-types.ts';
import {
  counters,
  generationAt,
  gracePeriod,
  kernelDevice,
  layoutVersion,
  pageSize,
  rangeFields,
  type Shape,
  shapeOf,
} from './layout.ts';
import type { CounterValues, SkippedBefore } from './loss.ts';
import type { DeviceIdentity } from '../device-identity.ts';
import type { SetName } from './program-set.ts';
import type { InFlight } from './programs/bio.ts';
import { copyMarks, fillUnits, type Marked, moveMarks } from './take.ts';

/** The description of an epoch in the control page. */
export interface DeviceMapDescription extends Description {
  readonly path: string;
  readonly epoch: Epoch;
  /** Maps that are pinned already have this name in their description. */
  readonly marks: DeviceIdentity;
  readonly shape: Shape;
  readonly set: SetName;
  /** IDs of the set's programs. If the IDs differ, the programs were not there all the time. */
  readonly programs: readonly number[];
  /** By tracepoint, the values when the epoch began; numbers as text. */
  readonly skipped: Readonly<Partial<Record<TracepointName, { misses: readonly string[]; deep: string }>>>;
}

export class TrackedDeviceMap {
  /** ID of the map. */
  readonly id: number;
  readonly #map: Descriptor;
  readonly #memory: MappedMap;
  readonly #control: BigUint64Array;
  readonly #marked: Marked;
  #description: DeviceMapDescription;
  #takes = 0;
  #closed = false;

  private constructor(fd: number, memory: MappedMap, description: DeviceMapDescription) {
    this.#map = new Descriptor(fd, 'the dirty map');
    this.id = mapInfo(fd).id;
    this.#description = description;
    this.#memory = memory;
    this.#control = new BigUint64Array(memory.memory, 0, pageSize / 8);
    const { shape } = description;
    const part = (from: number, to: number): Uint8Array =>
      new Uint8Array(memory.memory, from * pageSize, (to - from) * pageSize);
    this.#marked = {
      shape,
      fine: part(shape.fineAt, shape.coarseAt),
      coarse: part(shape.coarseAt, shape.takenAt),
      taken: new Int32Array(memory.memory, shape.takenAt * pageSize, Math.ceil(shape.units / 32)),
    };
  }

  get description(): DeviceMapDescription {
    return this.#description;
  }

  /** Creates a map that no program knows yet and that is not pinned. */
  static create(
    shape: Shape,
    path: string,
    identity: DeviceIdentity,
    set: SetName,
    programs: readonly number[],
    skipped: ReadonlyMap<TracepointName, SkippedBefore>,
  ): TrackedDeviceMap {
    const fd = createMap({
      type: 'array',
      keySize: 4,
      valueSize: pageSize,
      entries: shape.pages,
      flags: mapFlags.mmapable | mapFlags.innerMap,
      name: 'dattod_range',
    });
    try {
      const memory = mapIntoMemory(fd, shape.pages * pageSize);
      const description: DeviceMapDescription = {
        layout: layoutVersion,
        path,
        epoch: { id: freshUuid(), since: Date.now() },
        marks: identity,
        shape,
        set,
        programs,
        skipped: Object.fromEntries(
          [...skipped].map(([name, { misses, deep }]) => [
            name,
            { misses: misses.map(String), deep: String(deep) },
          ]),
        ),
      };
      const control = new BigUint64Array(memory.memory, 0, pageSize / 8);
      const start = (identity.partition?.start ?? 0) / 512;
      control[rangeFields.start / 8] = BigInt(start);
      control[rangeFields.end / 8] = BigInt(start + identity.size / 512);
      control[rangeFields.shift / 8] = BigInt(Math.log2(shape.unit) - 9);
      control[rangeFields.coarse / 8] = BigInt(shape.coarseAt);
      control[rangeFields.byBio / 8] = set === 'bio' ? 1n : 0n;
      control[generationAt / 8] = toNumber(newGeneration());
      control[rangeFields.grace / 8] = process.hrtime.bigint() + gracePeriod;
      writeDescription(memory.memory, description);
      return new TrackedDeviceMap(fd, memory, description);
    } catch (thrown) {
      closeSync(fd);
      throw thrown;
    }
  }

  /** Opens the map that an earlier process pinned. Returns a text if it cannot be used, undefined if there is none. */
  static open(path: string): TrackedDeviceMap | string | undefined {
    const fd = openPin(path);
    if (fd === undefined) return undefined;
    const info = mapInfo(fd);
    if (info.valueSize !== pageSize) {
      closeSync(fd);
      return `its map has elements of ${info.valueSize} bytes, not ${pageSize}`;
    }
    const memory = mapIntoMemory(fd, info.entries * pageSize);
    const description = readDescription(memory.memory) as DeviceMapDescription | string;
    const doubt = typeof description === 'string' ? description : shapeDoubt(description.shape, info.entries);
    if (typeof description === 'string' || doubt !== undefined) {
      memory.unmap();
      closeSync(fd);
      return doubt;
    }
    return new TrackedDeviceMap(fd, memory, description);
  }

  /** Device number of the disk, in the form that the programs use. */
  get disk(): number {
    const { major, minor, partition } = this.description.marks;
    return partition === undefined
      ? kernelDevice(major, minor)
      : kernelDevice(partition.major, partition.minor);
  }

  /** See generation.ts. */
  get generation(): Generation {
    return fromNumber(this.#control[generationAt / 8]!) ?? '';
  }

  /** Bytes of kernel memory. */
  get memory(): number {
    return this.description.shape.pages * pageSize;
  }

  counters(): CounterValues {
    const entries = Object.entries(counters).map(([name, offset]) => [name, this.#control[offset / 8]!]);
    return Object.fromEntries(entries) as CounterValues;
  }

  pin(path: string): void {
    pin(this.fd, path);
  }

  /**
   * Takes the dirty map. The caller has read `inFlight` before. Marks move to the taken map, and each take yields them
   * until `forget`.
   */
  take(inFlight: readonly InFlight[]): { dirty: Bitmap; forget: (next: Generation) => boolean } {
    const { shape, taken } = this.#marked;
    this.#control[rangeFields.grace / 8] = 0n;
    if (this.counters().everything > 0n) {
      fillUnits(taken, 0, shape.units);
      Atomics.store(this.#control, counters.everything / 8, 0n);
    }
    moveMarks(this.#marked);
    const dirty = new Bitmap(shape.size, shape.unit);
    dirty.load(taken);
    this.#addInFlight(dirty, inFlight);
    const number = ++this.#takes;
    return {
      dirty,
      // A later take yields this take's units too, and forgets them with its own.
      forget: (next) => {
        if (this.#closed || number !== this.#takes) return false;
        // The generation comes first. If the process dies in between, the map yields again marks that the chains of
        // `next` already hold. In the other order, an older copy of a chain would fit a map that has forgotten marks
        // that the copy lacks.
        this.#setGeneration(next);
        taken.fill(0);
        return true;
      },
    };
  }

  /** Returns what a take would yield now, without taking. */
  look(inFlight: readonly InFlight[]): Bitmap {
    const { shape, taken } = this.#marked;
    const dirty = new Bitmap(shape.size, shape.unit);
    if (this.counters().everything > 0n) dirty.fill(true);
    else {
      const marks = taken.slice();
      copyMarks(this.#marked, marks);
      dirty.load(marks);
      this.#addInFlight(dirty, inFlight);
    }
    return dirty;
  }

  /** Adds the units of these extents to each take until `forget`. */
  mark(extents: Iterable<Extent>): void {
    const { shape, taken } = this.#marked;
    for (const { offset, length } of extents)
      fillUnits(
        taken,
        Math.floor(offset / shape.unit),
        Math.min(Math.ceil((offset + length) / shape.unit), shape.units),
      );
    // An earlier take does not contain these units, so it must not forget them.
    this.#takes++;
  }

  /**
   * Makes this epoch the continuation of `epoch`, with its generation (undefined: no generation that a chain records).
   * The caller has marked the earlier epoch's dirty units before, so an interruption in between is harmless.
   */
  continueEpoch(epoch: Epoch, generation: Generation | undefined): void {
    if (generation !== undefined) this.#setGeneration(generation);
    // Nothing was under way when it began.
    this.#control[rangeFields.grace / 8] = 0n;
    this.#description = { ...this.#description, epoch };
    writeDescription(this.#memory.memory, this.#description);
  }

  get fd(): number {
    return this.#map.fd;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#memory.unmap();
    this.#map.close();
  }

  #setGeneration(generation: Generation): void {
    Atomics.store(this.#control, generationAt / 8, toNumber(generation));
  }

  #addInFlight(dirty: Bitmap, inFlight: readonly InFlight[]): void {
    const start = Number(this.#control[rangeFields.start / 8]);
    const end = Number(this.#control[rangeFields.end / 8]);
    for (const { device, sector, count } of inFlight) {
      if (device !== this.disk) continue;
      const from = Math.max(sector, start);
      const to = Math.min(sector + count, end);
      if (from < to) dirty.mark((from - start) * 512, (to - from) * 512);
    }
  }
}

export function deviceMapPin(directory: string, major: number, minor: number): string {
  return join(directory, `range-${major}:${minor}`);
}

export async function unpinDeviceMap(directory: string, major: number, minor: number): Promise<void> {
  await rm(deviceMapPin(directory, major, minor), { force: true });
}

function shapeDoubt(shape: Shape, pages: number): string | undefined {
  const expected = shapeOf(shape.size, shape.style, shape.unit).pages;
  return expected === pages ? undefined : `its map has ${pages} pages, not ${expected}`;
}
