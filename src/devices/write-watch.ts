/**
 * Reports whether anything was written to a block device between two moments, by the kernel's own counters
 * (Documentation/block/stat.rst). This needs no tracker, and does not tell which blocks were written.
 *
 * It counts sectors, not requests: each of our passes causes a flush, and a flush is a write of no sectors.
 */
import { type BigIntStats, readdirSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { boundedCall } from '../base/bounded-call.ts';
import { attributeOf, diskOf, placeOf } from './block-place.ts';
import type { Device } from './device.ts';

export interface WriteLook {
  /** Sectors written and discarded so far; undefined if the kernel does not count them for this device. */
  readonly written: number | undefined;
  /** Sectors read so far. A driver that does not count our reads does not count the writes of others either. */
  readonly read: number;
  /** `written` of the whole disk. Equal to `written` if the device is not a partition. */
  readonly onDisk: number | undefined;
  /** A write is in progress and not counted yet. */
  readonly underWay: boolean;
  /**
   * State of the file behind a loop device, see `writtenBehind`. Empty without a file, or if the file does not answer.
   */
  readonly file: string;
}

type Watched = Pick<Device, 'kind' | 'path' | 'major' | 'minor'>;

/** How often the counters are read at most, until those of a disk and of all its partitions belong to one moment. */
const attempts = 50;

/** Milliseconds after which a file that does not answer (on a hung network filesystem) counts as out of reach. */
const filePatience = 1000;

/**
 * Reads the counters. If `nothingWritten` is true for two reads, the device held the same bytes all the time between
 * them.
 */
export async function lookAtWrites(device: Watched, sys = '/sys'): Promise<WriteLook> {
  if (device.kind === 'file') {
    const file = await stateOfFile(device.path);
    return file === '' ? untold : { written: 0, read: 0, onDisk: 0, underWay: false, file };
  }
  const place = placeOf(device, sys);
  if (place === undefined) return untold;
  const backing = attributeOf(diskOf(place), 'loop/backing_file');
  return { ...count(place), file: backing === undefined ? '' : await stateOfFile(backing) };
}

/**
 * True if the file behind a loop device changed and the device was not written to. Neither the counters nor a tracker
 * of the device see writes to the file itself.
 */
export function writtenBehind(before: WriteLook, after: WriteLook): boolean {
  return before.file !== after.file && before.onDisk === after.onDisk;
}

/** Returns undefined if the counters do not tell. The caller must have read `device` between `before` and `after`. */
export function nothingWritten(device: Watched, before: WriteLook, after: WriteLook): boolean | undefined {
  if (writtenBehind(before, after)) return false;
  if (before.written === undefined || after.written === undefined) return undefined;
  if (before.written !== after.written || after.underWay) return false;
  return device.kind === 'file' || after.read > before.read ? true : undefined;
}

const untold: WriteLook = { written: undefined, read: 0, onDisk: undefined, underWay: false, file: '' };

function count(place: string): Omit<WriteLook, 'file'> {
  const disk = diskOf(place);
  if (attributeOf(disk, 'queue/iostats') === '0') return untold;
  const own = sectors(place);
  if (place === disk) return { ...own, onDisk: own.written, underWay: writesUnderWay(place) > 0 };
  // Writes to the disk itself may go to this partition. Their count is the disk's minus that of all its partitions.
  const partitions = readdirSync(disk)
    .map((name) => join(disk, name))
    .filter((each) => attributeOf(each, 'partition') !== undefined);
  for (let attempt = 0; attempt < attempts; attempt++) {
    const total = sectors(disk).written;
    const inDisk = writesUnderWay(disk);
    const here = { ...sectors(place), underWay: writesUnderWay(place) };
    const sum = partitions.reduce((each, part) => each + sectors(part).written, 0);
    const inPartitions = partitions.reduce((each, part) => each + writesUnderWay(part), 0);
    if (total !== sectors(disk).written) continue;
    const underWay = here.underWay > 0 || inDisk > inPartitions;
    if (underWay && attempt < attempts - 1) continue;
    return { written: here.written + total - sum, read: here.read, onDisk: total, underWay };
  }
  return untold;
}

function sectors(place: string): { written: number; read: number } {
  const fields = (attributeOf(place, 'stat') ?? '').trim().split(/\s+/).map(Number);
  // Discards have fields of their own since Linux 4.18.
  return { written: (fields[6] ?? 0) + (fields[13] ?? 0), read: fields[2] ?? 0 };
}

function writesUnderWay(place: string): number {
  return Number((attributeOf(place, 'inflight') ?? '').trim().split(/\s+/)[1] ?? 0);
}

async function stateOfFile(path: string): Promise<string> {
  const ask = (): Promise<BigIntStats> => stat(path, { bigint: true });
  const node = await boundedCall('stat', path, ask, { limitMs: filePatience }).catch(() => undefined);
  return node === undefined ? '' : [node.dev, node.ino, node.size, node.mtimeNs, node.ctimeNs].join(':');
}
