/**
 * The block devices of this machine. sysfs gives the devices and which lies on which, mountinfo gives the mounts (by
 * device number), and the devices themselves give filesystems and partition tables. Every root directory can be
 * replaced, so that fixtures can describe stacks that a test machine cannot make.
 */
import { stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { boundedCall, isNoAnswer } from '../base/bounded-call.ts';
import { filePath } from '../base/file-name.ts';
import type { SysBlockDevice } from '../linux/sysfs.ts';
import { describeBackup } from './describe-backup.ts';
import type { Probed, ProbedPartition } from './probe-device.ts';
import { probeElsewhere } from './probe-process.ts';
import { fitness, readTopology, type Topology, type TopologyOptions } from './topology.ts';
import type { Device, Mount } from './device.ts';

export interface InventoryOptions extends TopologyOptions {
  /**
   * Returns the content of a device. Undefined if it cannot be read; throws NO_ANSWER if it hangs. Default: reads it.
   */
  readonly probe?: (path: string) => Promise<Probed | undefined>;
  /** Returns the bytes in use of the filesystem mounted there. Default: statfs. */
  readonly usedBytes?: (mountPoint: string) => Promise<number | undefined>;
  /** Longest wait for a filesystem that does not answer, in milliseconds. Default 5000. */
  readonly patience?: number;
}

/** Marks a device or filesystem that did not answer in time. */
const hangs = 'hangs';

/**
 * Describes all devices that hold data. Leaves out devices without a medium, RAM disks and optical drives. A device
 * that does not answer is listed as one that cannot be backed up, so one dead device does not hide the others.
 */
export async function listDevices(options: InventoryOptions = {}): Promise<Device[]> {
  const { dev = '/dev' } = options;
  const topology = await readTopology(options);
  const shown = topology.devices.filter(
    (each) => each.size > 0 && !each.hidden && !/^(ram|zram|sr|fd)\d/.test(each.name),
  );
  const patience = options.patience ?? 5000;
  const probe = options.probe ?? probeElsewhere;
  const usedBytes = options.usedBytes ?? usedByStatfs;

  const paths = new Map<string, string>();
  for (const each of shown) paths.set(each.name, await devicePath(each, dev));
  const probes = new Map<string, Probed | undefined>();
  const hung = new Set<string>();
  await Promise.all(
    shown.map(async (each) => {
      // A read of a suspended device would wait until it is resumed.
      if (each.dm?.suspended === true) return;
      const path = paths.get(each.name)!;
      const probed = await answerOf(probe(path));
      if (probed === hangs) hung.add(each.name);
      else probes.set(each.name, probed);
    }),
  );

  return Promise.all(
    shown.map(async (each): Promise<Device> => {
      const own = mountsDirectlyOn(topology, each.name);
      const path = paths.get(each.name)!;
      const probed = probes.get(each.name);
      const first = own[0];
      const filesystem = each.partitions.length > 0 ? undefined : probed?.filesystem;
      const device = {
        path,
        kernelName: each.name,
        major: each.major,
        minor: each.minor,
        kind: kindOf(each),
        size: each.size,
        sectorSize: each.sectorSize,
        physicalSectorSize: each.physicalSectorSize,
        diskSequence: each.diskSequence,
        readOnly: each.readOnly,
        partition: partitionInfo(each, paths, probes),
        holders: each.holders,
        lowers: topology.lowers.get(each.name) ?? [],
        backingFile: each.loop?.file,
        filesystem,
        mounts: own,
        used: first === undefined ? undefined : await usedOf(first.path, usedBytes, patience),
      };
      const backup = describeBackup(filesystem?.type, {
        readable: probed !== undefined,
        suspended: each.dm?.suspended ?? false,
        answers: !hung.has(each.name),
        partitions: each.partitions.length,
      });
      return { ...device, backup };
    }),
  );
}

function kindOf(device: SysBlockDevice): Device['kind'] {
  if (device.partition !== undefined) return 'partition';
  if (device.dm !== undefined) return 'dm';
  if (device.md) return 'md';
  if (/^loop\d/.test(device.name)) return 'loop';
  return 'disk';
}

async function devicePath(device: SysBlockDevice, dev: string): Promise<string> {
  if (device.dm !== undefined) {
    // udev makes these links. If udev does not run, there may be none.
    const mapped = join(dev, 'mapper', device.dm.name);
    if (await exists(mapped)) return mapped;
  }
  return join(dev, device.name.replaceAll('!', '/'));
}

function partitionInfo(
  device: SysBlockDevice,
  paths: ReadonlyMap<string, string>,
  probes: ReadonlyMap<string, Probed | undefined>,
): Device['partition'] {
  if (device.partition === undefined) return undefined;
  const { disk, number, start } = device.partition;
  const table = probes.get(disk)?.partitions;
  // Number and start must match: if the table was rewritten since the kernel read it, only the number would.
  const entry = table?.find((each: ProbedPartition) => each.number === number && each.start === start);
  return {
    disk: paths.get(disk) ?? join('/dev', disk),
    number,
    start,
    uuid: entry?.uuid,
    label: entry?.label,
    table: probes.get(disk)?.table ?? 'mbr',
  };
}

/** Returns the mounts of the device. The first is the best one to reach the filesystem. */
function mountsDirectlyOn(topology: Topology, name: string): Mount[] {
  return topology.mounts
    .filter((mount) => mount.device === name)
    .sort((a, b) => fitness(b) - fitness(a))
    .map(({ path, filesystemReadOnly, root, type, covered }) => ({
      path,
      readOnly: filesystemReadOnly,
      root,
      type,
      ...(covered ? { covered } : {}),
    }));
}

async function usedByStatfs(mountPoint: string): Promise<number | undefined> {
  const { blocks, bfree, bsize } = await statfs(filePath(mountPoint));
  return (blocks - bfree) * bsize;
}

async function usedOf(
  mountPoint: string,
  usedBytes: (mountPoint: string) => Promise<number | undefined>,
  patience: number,
): Promise<number | undefined> {
  const used = await answerOf(
    boundedCall('statfs', mountPoint, () => usedBytes(mountPoint), { limitMs: patience }),
  );
  return used === hangs ? undefined : used;
}

/** Returns what `call` gives, undefined if it fails, and `hangs` if it throws NO_ANSWER. */
async function answerOf<T>(call: Promise<T>): Promise<T | typeof hangs | undefined> {
  try {
    return await call;
  } catch (thrown) {
    return isNoAnswer(thrown) ? hangs : undefined;
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
