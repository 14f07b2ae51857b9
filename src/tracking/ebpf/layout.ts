/**
 * The layout that the programs in the kernel and this process share: the parts of a tracked range's map, and the size
 * of its unit. Specified in docs/formats/tracking.md. Raise `layoutVersion` with a change that an older agent would
 * misread. Pure.
 *
 * A range's map is an array of pages. The control page comes first. The fine map has one bit or byte per
 * unit, and the coarse map one per group of units, for large requests. The taken map has one bit per unit; only this
 * process writes to it.
 */
import { KiB, MiB } from '../../base/bytes.ts';

export const layoutVersion = 3;
/** Bytes of an element of the maps. */
export const pageSize = 4096;
/** The most ranges of one disk that are tracked at once: its partitions, and the disk itself. */
export const rangesPerDisk = 64;
/**
 * Entries for writes in flight, for all devices together: bios of devices without requests, and requests of the others.
 */
export const inFlightEntries = 65536;
/** Bytes of kernel memory for the fine and the taken map of one device, unless set. */
export const defaultBudget = 64 * MiB;
const smallestUnit = 4 * KiB;

/** How units are marked: by an atomic OR of bits (since Linux 5.12), or by a byte for each unit. */
export type Style = 'bits' | 'bytes';

/** Counters of the control page, u64 each, which the programs raise. A counter that is not zero means: */
export const counters = {
  /** Everything may have changed: a request was too large or too scattered to be marked exactly. */
  everything: 0,
  /** A command was passed through to the device, which may have written anything. */
  passthrough: 8,
  /** A write in flight could not be remembered. */
  lostInFlight: 16,
  /** A write ended after `grace` whose beginning was not seen. */
  unpaired: 24,
  /** A zone was reset. */
  zoneReset: 32,
} as const;

/** Fields of the control page that the programs read, u64 each. */
export const rangeFields = {
  /** Sectors (512 bytes) of the disk, from and to (exclusive). */
  start: 64,
  end: 72,
  /** A sector's number shifted right by this gives the number of its unit. */
  shift: 80,
  /** First page of the coarse map. */
  coarse: 88,
  /** 1: the device does not use requests, so its writes are paired by bio. */
  byBio: 96,
  /** Always 0, which the verifier does not know. */
  zero: 104,
  /**
   * Nanoseconds of CLOCK_MONOTONIC. Before this time, writes may end that were under way when the epoch began. The
   * first take sets it to 0, because the caller has waited for those writes by then.
   */
  grace: 112,
} as const;

/** Offset of the map's generation in the control page (generation.ts), u64. Only this process uses it. */
export const generationAt = 120;

/** How long writes may be under way when an epoch begins, in nanoseconds. */
export const gracePeriod = 30_000_000_000n;

/** Offset of the description (JSON): magic u32, layout version u32, length u32, text. */
export const descriptionAt = 256;
export const descriptionMagic = 0x544b4244;

/** Bytes of a key in the map of ranges: device number of the disk in the kernel's form, and a number from 0. */
export const rangeKeySize = 8;
/** Key: the bio's or request's address. Value: first sector u64, sectors u64, device number u32, 0 u32. */
export const inFlightKeySize = 8;
export const inFlightValueSize = 24;

export const styles = {
  bits: { perPage: pageSize * 8, groupShift: 12 },
  bytes: { perPage: pageSize, groupShift: 9 },
} as const;

export interface Shape {
  readonly style: Style;
  /** Bytes of the device. */
  readonly size: number;
  /** Bytes per unit. */
  readonly unit: number;
  readonly units: number;
  /** The first page of each part, and the number of pages of the whole map. */
  readonly fineAt: number;
  readonly coarseAt: number;
  readonly takenAt: number;
  readonly pages: number;
}

/**
 * Returns the finest shape whose fine and taken map fit the budget (bytes). The control page and the coarse map are not
 * counted.
 */
export function shapeFor(size: number, style: Style, budget: number = defaultBudget): Shape {
  let unit = smallestUnit;
  while (unitsCost(Math.ceil(size / unit), style) > budget) unit *= 2;
  return shapeOf(size, style, unit);
}

export function shapeOf(size: number, style: Style, unit: number): Shape {
  const { perPage, groupShift } = styles[style];
  const units = Math.ceil(size / unit);
  const pagesFor = (things: number, perEach: number): number => Math.max(1, Math.ceil(things / perEach));
  const fineAt = 1;
  const coarseAt = fineAt + pagesFor(units, perPage);
  const takenAt = coarseAt + pagesFor(Math.ceil(units / 2 ** groupShift), perPage);
  return {
    style,
    size,
    unit,
    units,
    fineAt,
    coarseAt,
    takenAt,
    pages: takenAt + pagesFor(units, styles.bits.perPage),
  };
}

function unitsCost(units: number, style: Style): number {
  return units / 8 + (style === 'bits' ? units / 8 : units);
}

/** Returns the kernel-internal dev_t: 20 bits of minor number. */
export function kernelDevice(major: number, minor: number): number {
  return ((major << 20) | minor) >>> 0;
}

/** Returns the key of a range; see `rangeKeySize`. */
export function rangeKey(device: number, index: number): Buffer {
  const key = Buffer.alloc(rangeKeySize);
  key.writeUInt32LE(device, 0);
  key.writeUInt32LE(index, 4);
  return key;
}
