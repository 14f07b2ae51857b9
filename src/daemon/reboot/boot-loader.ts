/**
 * What a boot loader may have written before the kernel ran: GRUB keeps its environment (the entry chosen last, the
 * mark of a failed boot) in a block of a file that it writes past the filesystem, and syslinux its own. No sign of
 * life shows that, so on devices whose epoch goes on over a reboot those blocks count as dirty.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode, toAgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import type { Log } from '../../base/log.ts';
import type { Device } from '../../devices/device.ts';
import { fileExtents } from '../../linux/fiemap.ts';
import { splitDeviceNumber } from '../../linux/usage.ts';
import type { TrackerChoice } from '../../tracking/choose.ts';
import type { RebootOutcome } from './outcome.ts';

const files = [
  ...['grub/grubenv', 'grub2/grubenv'],
  ...['extlinux/ldlinux.sys', 'syslinux/ldlinux.sys', 'ldlinux.sys'],
].flatMap((path) => [path, join('boot', path)]);

/** To be called before the first job of a boot. A device whose files cannot be found out is tracked no longer. */
export async function markBootLoaderFiles(
  outcome: RebootOutcome,
  listDevices: () => Promise<readonly Device[]>,
  trackers: TrackerChoice,
  log: Log,
): Promise<void> {
  const going = outcome.devices.filter(({ epoch }) => epoch !== null);
  if (going.length === 0) return;
  for (const device of await listDevices()) {
    if (!going.some(({ uuid }) => uuid === device.filesystem?.uuid)) continue;
    try {
      const extents = await bootLoaderExtents(device);
      if (extents.length > 0) await trackers.mark(device, extents);
    } catch (thrown) {
      log.warn(
        { device: device.path, err: toAgentError(thrown) },
        'what the boot loader writes was not found',
      );
      await trackers.untrack(device);
    }
  }
}

async function bootLoaderExtents(device: Device): Promise<Extent[]> {
  const mount = device.mounts.find(({ root, covered }) => root === '/' && covered !== true);
  if (mount === undefined) return [];
  const extents: Extent[] = [];
  for (const file of files) extents.push(...(await extentsOn(device, join(mount.path, file))));
  return extents;
}

async function extentsOn(device: Device, path: string): Promise<Extent[]> {
  try {
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const found = await handle.stat();
      const { major, minor } = splitDeviceNumber(found.dev);
      // A link may lead to another filesystem.
      if (!found.isFile() || major !== device.major || minor !== device.minor) return [];
      return fileExtents(handle.fd);
    } finally {
      await handle.close();
    }
  } catch (thrown) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes(errnoCode(thrown) ?? '')) return [];
    throw thrown;
  }
}
