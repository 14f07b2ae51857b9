/** A disk's partition table and, on machines that boot by BIOS, the areas that hold the boot loader. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { KiB, MiB } from '../base/bytes.ts';
import { openDeviceSource } from '../block/device-source.ts';
import type { ReadAt } from '../block/source.ts';
import { readPartitionTable } from '../filesystems/disk/partition-table.ts';
import type { Partition, PartitionTable } from '../filesystems/disk/partition.ts';
import type { OutputOf } from '../linux/program.ts';
import type { Device } from './device.ts';
import type { LayoutNotes } from './layout-notes.ts';

export interface DiskLayout {
  readonly path: string;
  readonly kernel_name: string;
  /** Bytes. */
  readonly size: number;
  readonly sector_size: number;
  readonly physical_sector_size: number;
  /** Empty if the disk does not report it. */
  readonly model: string;
  readonly serial: string;
  readonly table: {
    readonly kind: 'gpt' | 'mbr';
    readonly uuid: string;
    readonly partitions: readonly PartitionLayout[];
    readonly problem: string | null;
  } | null;
  /** Output of `sfdisk --dump`, which `sfdisk` can read. Null if there is no table or no sfdisk. */
  readonly sfdisk: string | null;
  /** Areas to be written back unchanged, at the same offsets. Empty on machines that boot by UEFI. */
  readonly boot_areas: readonly BootArea[];
}

export interface PartitionLayout {
  readonly number: number;
  /** Bytes. */
  readonly start: number;
  readonly size: number;
  /** GUID, or `0x83`. */
  readonly type: string;
  readonly uuid: string;
  readonly label: string;
}

export interface BootArea {
  readonly offset: number;
  /** Base64, without the zeros at its end. */
  readonly data: string;
}

export interface DiskContext {
  readonly boot: 'uefi' | 'bios';
  readonly run: OutputOf;
  readonly notes: LayoutNotes;
  readonly sys: string;
  readonly signal: AbortSignal | undefined;
}

/** Bytes of boot code in the MBR, before the disk's identifier and the table. */
const bootCode = 440;
const biosBootPartition = '21686148-6449-6e6f-744e-656564454649';
/**
 * Longest boot area that is kept. Boot loaders behind the MBR, or in a partition of their own, are some 30 to 100 KiB.
 */
const longestArea = 256 * KiB;
const longestGap = MiB;

export async function readDiskLayout(device: Device, context: DiskContext): Promise<DiskLayout> {
  const { notes, run, sys, signal } = context;
  const { table, areas } = await notes.attempt(device.path, () => readTable(device, context), {
    table: undefined,
    areas: [],
  });
  const dump =
    table === undefined
      ? undefined
      : await notes.attempt(
          `sfdisk --dump ${device.path}`,
          () => run('sfdisk', ['--dump', device.path], { signal }),
          '',
        );
  const about = join(sys, 'block', device.kernelName, 'device');
  return {
    path: device.path,
    kernel_name: device.kernelName,
    size: device.size,
    sector_size: device.sectorSize,
    physical_sector_size: device.physicalSectorSize,
    model: await attribute(join(about, 'model')),
    serial: await attribute(join(about, 'serial')),
    table:
      table === undefined
        ? null
        : {
            kind: table.kind,
            uuid: table.uuid ?? '',
            partitions: table.partitions.map(describe),
            problem: table.problem ?? null,
          },
    sfdisk: dump === undefined || dump === '' ? null : notes.bounded(`sfdisk --dump ${device.path}`, dump),
    boot_areas: areas,
  };
}

async function readTable(
  device: Device,
  { boot, notes }: DiskContext,
): Promise<{ table: PartitionTable | undefined; areas: BootArea[] }> {
  const source = await openDeviceSource(device.path);
  try {
    const readAt: ReadAt = (offset, length) => source.readAt(offset, length);
    const table = await readPartitionTable(readAt, source.size, source.sectorSize);
    if (table === undefined || boot === 'uefi') return { table, areas: [] };
    const areas: BootArea[] = [];
    for (const [offset, length] of bootAreas(table, source.sectorSize)) {
      const data = trimmed(Buffer.from(await readAt(offset, length)));
      if (data.length > longestArea)
        notes.add(`${device.path}: the boot area at ${offset} has ${data.length} bytes, which is too much`);
      else if (data.length > 0)
        areas.push({
          offset,
          data: notes.bounded(`boot area of ${device.path}`, data.toString('base64')),
        });
    }
    return { table, areas };
  } finally {
    await source.close();
  }
}

/** Returns the offsets and lengths of the boot areas. The partition table itself is in none of them. */
export function bootAreas(
  table: Pick<PartitionTable, 'kind' | 'partitions'>,
  sectorSize: number,
): [offset: number, length: number][] {
  const areas: [number, number][] = [[0, bootCode]];
  if (table.kind === 'gpt') {
    for (const { type, start, size } of table.partitions)
      if (type.toLowerCase() === biosBootPartition) areas.push([start, Math.min(size, longestGap)]);
  } else if (table.partitions.length > 0) {
    const first = Math.min(...table.partitions.map(({ start }) => start), longestGap);
    if (first > sectorSize) areas.push([sectorSize, first - sectorSize]);
  }
  return areas;
}

function trimmed(data: Buffer): Buffer {
  let end = data.length;
  while (end > 0 && data[end - 1] === 0) end--;
  return data.subarray(0, end);
}

function describe({ number, start, size, type, uuid, label }: Partition): PartitionLayout {
  return { number, start, size, type, uuid: uuid ?? '', label: label ?? '' };
}

async function attribute(path: string): Promise<string> {
  return (await readFile(path, 'utf8').catch(() => '')).trim().slice(0, 200);
}
