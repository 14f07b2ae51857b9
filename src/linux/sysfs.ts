/**
 * Reads block devices from /sys/block (Documentation/ABI/stable/sysfs-block): sizes, partitions, and which device is on
 * which. The root of the tree is a parameter, so tests can use trees that this machine cannot have.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import pLimit from 'p-limit';
import { errnoCode } from '../base/errors.ts';

export interface SysBlockDevice {
  /** Kernel name, such as `sda1`. A `!` in it is a slash in the path in /dev. */
  readonly name: string;
  readonly major: number;
  readonly minor: number;
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly removable: boolean;
  /** Devices that must not be used, such as the single paths of NVMe multipath. */
  readonly hidden: boolean;
  readonly sectorSize: number;
  readonly physicalSectorSize: number;
  /** Kernel name of the whole disk, and the start on it in bytes; undefined for whole disks. */
  readonly partition: { readonly disk: string; readonly number: number; readonly start: number } | undefined;
  /** Kernel names of the partitions. */
  readonly partitions: readonly string[];
  /** Kernel names of the devices on this one, without partitions. `slaves` are the devices that this one is on. */
  readonly holders: readonly string[];
  readonly slaves: readonly string[];
  readonly dm: { readonly name: string; readonly uuid: string; readonly suspended: boolean } | undefined;
  readonly md: boolean;
  readonly loop: LoopBacking | undefined;
  /** Increases each time when a device number is used again (since Linux 5.15). */
  readonly diskSequence: number | undefined;
}

export interface LoopBacking {
  /** Path of the file when it was attached, without the " (deleted)" of the kernel. */
  readonly file: string;
  readonly deleted: boolean;
  /** Bytes at the start of the file that are not part of the device. */
  readonly offset: number;
}

/** Limits the disks that are read at once in the process: each needs up to seven descriptors for a moment. */
const reading = pLimit(8);

/** Returns all block devices, partitions after their disk. A device that vanishes during the call is left out. */
export async function readBlockDevices(sys = '/sys'): Promise<SysBlockDevice[]> {
  const root = join(sys, 'block');
  const names = (await readdir(root)).sort(byNumber);
  const groups = await Promise.all(names.map((name) => reading(() => readDisk(join(root, name), name))));
  return groups.flat();
}

/** Reads a disk and its partitions. Loop devices without a file are left out: a machine may have hundreds of them. */
async function readDisk(directory: string, name: string): Promise<SysBlockDevice[]> {
  const entries = await list(directory);
  if (/^loop\d+$/.test(name) && !entries.includes('loop')) return [];
  const partitions: SysBlockDevice[] = [];
  const names = entries.filter((entry) => entry.startsWith(name)).sort(byNumber);
  const disk = await readDevice(directory, name, undefined, undefined);
  if (disk === undefined) return [];
  for (const entry of names) {
    const place = join(directory, entry);
    const number = Number(await attribute(place, 'partition'));
    if (!(number > 0)) continue;
    const start = Number(await attribute(place, 'start')) * 512;
    const partition = await readDevice(place, entry, { disk: name, number, start }, disk);
    if (partition !== undefined) partitions.push(partition);
  }
  return [{ ...disk, partitions: partitions.map((each) => each.name) }, ...partitions];
}

async function readDevice(
  directory: string,
  name: string,
  partition: SysBlockDevice['partition'],
  disk: SysBlockDevice | undefined,
): Promise<SysBlockDevice | undefined> {
  const numbers = /^(\d+):(\d+)$/.exec((await attribute(directory, 'dev')) ?? '');
  const sectors = await attribute(directory, 'size');
  if (numbers === null || sectors === undefined) return undefined;
  const [ro, removable, hidden, logical, physical, sequence] = await Promise.all(
    ['ro', 'removable', 'hidden', 'queue/logical_block_size', 'queue/physical_block_size', 'diskseq'].map(
      (each) => attribute(directory, each),
    ),
  );
  const [dmName, dmUuid, dmSuspended, mdLevel, holders, slaves, loop] = await Promise.all([
    attribute(directory, 'dm/name'),
    attribute(directory, 'dm/uuid'),
    attribute(directory, 'dm/suspended'),
    attribute(directory, 'md/array_state'),
    list(join(directory, 'holders')),
    list(join(directory, 'slaves')),
    readLoop(directory),
  ]);
  const sectorSize = Number(logical ?? disk?.sectorSize ?? 512);
  return {
    name,
    major: Number(numbers[1]),
    minor: Number(numbers[2]),
    // In units of 512 bytes, for every sector size.
    size: Number(sectors) * 512,
    readOnly: ro === '1',
    removable: removable === '1' || disk?.removable === true,
    hidden: hidden === '1',
    sectorSize,
    physicalSectorSize: Number(physical ?? disk?.physicalSectorSize ?? sectorSize),
    partition,
    partitions: [],
    holders: holders.sort(byNumber),
    slaves: slaves.sort(byNumber),
    dm:
      dmName === undefined ? undefined : { name: dmName, uuid: dmUuid ?? '', suspended: dmSuspended === '1' },
    md: mdLevel !== undefined,
    loop,
    diskSequence: sequence === undefined ? disk?.diskSequence : Number(sequence),
  };
}

async function readLoop(directory: string): Promise<LoopBacking | undefined> {
  const text = await attribute(directory, 'loop/backing_file');
  if (text === undefined) return undefined;
  const mark = ' (deleted)';
  const deleted = text.endsWith(mark);
  return {
    file: deleted ? text.slice(0, -mark.length) : text,
    deleted,
    offset: Number((await attribute(directory, 'loop/offset')) ?? 0),
  };
}

/** Returns the contents of an attribute file without the last newline; undefined if it is absent. */
export async function attribute(directory: string, name: string): Promise<string | undefined> {
  try {
    return (await readFile(join(directory, name), 'utf8')).replace(/\n$/, '');
  } catch (thrown) {
    if (isAbsent(thrown)) return undefined;
    throw thrown;
  }
}

async function list(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (thrown) {
    if (isAbsent(thrown)) return [];
    throw thrown;
  }
}

/** True if the attribute is absent. Attributes of devices that are being removed give ENODEV, ENXIO or EIO. */
function isAbsent(thrown: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ENODEV', 'ENXIO', 'EIO', 'EINVAL', 'EACCES'].includes(
    errnoCode(thrown) ?? '',
  );
}

/** Sorts sda2 before sda10. */
function byNumber(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}
