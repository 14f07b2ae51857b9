/**
 * Blocks that a boot loader may have written before the kernel ran. GRUB keeps its environment (the entry chosen last,
 * the mark of a failed boot) in a block of a file, and writes that block past the filesystem. Syslinux writes a file
 * of its own in the same way. No sign of life shows such a write. So on devices whose epoch continues over a reboot,
 * those blocks count as dirty.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError, errnoCode, toAgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import type { Log } from '../../base/log.ts';
import type { Device } from '../../devices/device.ts';
import { fileExtents } from '../../linux/fiemap.ts';
import { splitDeviceNumber } from '../../linux/device-uses.ts';
import type { StartTracking, TrackerRegistry } from '../../tracking/tracker-registry.ts';
import type { RebootOutcome } from './outcome.ts';

const files = [
  ...['grub/grubenv', 'grub2/grubenv'],
  ...['extlinux/ldlinux.sys', 'syslinux/ldlinux.sys', 'ldlinux.sys'],
].flatMap((path) => [path, join('boot', path)]);

export interface BootLoaderMarks {
  /** The given outcome, without the epochs of devices whose boot loader files could not be located. */
  readonly outcome: RebootOutcome;
  /**
   * UUIDs of those devices that could not be untracked either. They are untracked before they are tracked next time.
   */
  readonly stillTracked: ReadonlySet<string>;
}

/**
 * Marks the blocks of boot loader files as dirty. Call it before the first job of a boot. If the files of a device
 * cannot be located, the device is untracked, so that its next backup compares. Never rejects: the daemon must start,
 * whatever is wrong with a tracker or a device.
 */
export async function markBootLoaderFiles(
  outcome: RebootOutcome,
  listDevices: () => Promise<readonly Device[]>,
  trackers: Pick<TrackerRegistry, 'mark' | 'untrack'>,
  log: Log,
): Promise<BootLoaderMarks> {
  const doubts = new Map<string, string>();
  const stillTracked = new Set<string>();
  const going = outcome.devices.filter(({ epoch }) => epoch !== null);
  const devices = await (going.length === 0
    ? []
    : listDevices().catch((thrown: unknown) => toAgentError(thrown)));
  for (const { device: path, uuid } of going) {
    try {
      if (devices instanceof AgentError) throw devices;
      for (const device of devices.filter(({ filesystem }) => filesystem?.uuid === uuid)) {
        const extents = await bootLoaderExtents(device);
        if (extents.length > 0) await trackers.mark(device, extents);
      }
    } catch (thrown) {
      const err = toAgentError(thrown);
      log.warn(
        { device: path, err },
        'the blocks that the boot loader writes were not found: the next backup compares',
      );
      doubts.set(uuid, `the blocks that the boot loader may have written were not found: ${err.message}`);
      if (!(await untracked(uuid, devices, trackers, log))) stillTracked.add(uuid);
    }
  }
  return {
    outcome: {
      ...outcome,
      devices: outcome.devices.map((each) => {
        const why = each.epoch === null ? undefined : doubts.get(each.uuid);
        return why === undefined ? each : { ...each, epoch: null, why };
      }),
    },
    stillTracked,
  };
}

async function untracked(
  uuid: string,
  devices: readonly Device[] | AgentError,
  trackers: Pick<TrackerRegistry, 'untrack'>,
  log: Log,
): Promise<boolean> {
  if (devices instanceof AgentError) return false;
  try {
    for (const device of devices) if (device.filesystem?.uuid === uuid) await trackers.untrack(device);
    return true;
  } catch (err) {
    log.warn({ uuid, err }, 'a device whose tracking may have missed writes could not be untracked yet');
    return false;
  }
}

/**
 * Wraps `start`: untracks each device of `stillTracked` before it is tracked again. If a device still cannot be
 * untracked, it is backed up as if nothing tracked it.
 */
export function untrackFirst(
  start: StartTracking,
  stillTracked: ReadonlySet<string>,
  trackers: Pick<TrackerRegistry, 'untrack'>,
): StartTracking {
  const left = new Set(stillTracked);
  return async (device, wish) => {
    if (wish === 'none' || !left.has(device.uuid)) return start(device, wish);
    try {
      await trackers.untrack(device);
    } catch (thrown) {
      if (wish !== 'auto') throw thrown;
      const { message } = toAgentError(thrown);
      return {
        tracker: undefined,
        why: `its tracking may have missed writes and could not be started again (${message})`,
      };
    }
    left.delete(device.uuid);
    return start(device, wish);
  };
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
      // A symbolic link may lead to another filesystem.
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
