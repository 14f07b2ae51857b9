/**
 * Devices that this program made or writes to: a mounted or attached recovery point, the destination of a restore, the
 * target of another job. They are never the source of a backup. A point may be mounted in place of its device for a
 * while. It would then be backed up as the device, and retention would remove the real points.
 */
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import type { Device } from '../../devices/device.ts';
import { type Stack, withLowers } from '../../devices/stacking.ts';
import { splitDeviceNumber } from '../../linux/device-uses.ts';
import type { JobEnvironment } from '../job.ts';

/**
 * Throws SOURCE_IS_BACKUP if the device, or one that it lies on (by device-mapper, loop or partition), shows a recovery
 * point. Throws DEVICE_BUSY if a process of this program writes to one of them.
 */
export async function refuseOwn(
  device: Device,
  { devices, stack }: { readonly devices: readonly Device[]; readonly stack: Stack },
  { shownPoints }: Pick<JobEnvironment, 'shownPoints'>,
  proc = '/proc',
): Promise<void> {
  if (device.kind === 'file') return;
  const names = withLowers(stack, device.kernelName);
  const below = devices.filter(({ kernelName }) => names.has(kernelName));
  const isShown = await shownPoints?.();
  const shown = below.find((each) => isShown?.(each) === true);
  if (shown !== undefined) throw showsBackup(device, shown);
  const writer = await ownWriter(below, proc);
  if (writer !== undefined)
    throw new AgentError(
      'DEVICE_BUSY',
      `${device.path} cannot be backed up: a restore or a backup of this program (process ${writer.pid}) writes to ` +
        writer.device.path,
      { hint: 'start the backup when that has ended' },
    );
}

function showsBackup(device: Device, shown: Device): AgentError {
  const place = device.mounts[0]?.path;
  const what = place === undefined ? device.path : `${device.path} (mounted at ${place})`;
  const below = shown === device ? '' : `: it lies on ${shown.path}, which does`;
  return new AgentError(
    'SOURCE_IS_BACKUP',
    `${what} shows a recovery point or an image of a backup${below}`,
    {
      hint: 'name the real device; dattocli mount lists the mounted points, and dattocli umount removes them',
    },
  );
}

interface Writer {
  readonly pid: number;
  readonly device: Device;
}

/** Returns a process of the same program that has one of the devices open for writing. Sources are opened read-only. */
async function ownWriter(devices: readonly Device[], proc: string): Promise<Writer | undefined> {
  const own = await readlink(join(proc, 'self/exe')).catch(() => undefined);
  const pids = (await readdir(proc).catch(() => [])).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    if ((await readlink(join(proc, pid, 'exe')).catch(() => undefined)) !== own) continue;
    for (const fd of await readdir(join(proc, pid, 'fd')).catch(() => [])) {
      const path = join(proc, pid, 'fd', fd);
      // Checks only paths in /dev: a stat of others may wait for a hung filesystem.
      if (!(await readlink(path).catch(() => '')).startsWith('/dev/')) continue;
      const node = await stat(path).catch(() => undefined);
      if (node?.isBlockDevice() !== true) continue;
      const { major, minor } = splitDeviceNumber(node.rdev);
      const device = devices.find((each) => each.major === major && each.minor === minor);
      if (device !== undefined && (await isWritable(join(proc, pid, 'fdinfo', fd))))
        return { pid: Number(pid), device };
    }
  }
  return undefined;
}

/** The access mode is in the last two bits of the flags, which are octal. */
async function isWritable(fdinfo: string): Promise<boolean> {
  const text = await readFile(fdinfo, 'utf8').catch(() => '');
  const flags = /^flags:\s*([0-7]+)$/m.exec(text)?.[1];
  return flags !== undefined && (Number.parseInt(flags, 8) & 3) !== 0;
}
