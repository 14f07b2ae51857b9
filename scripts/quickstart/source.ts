/** Finds the device that the user named, and refuses a directory that lies on it. */
import { existsSync, realpathSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { command, tryCommand } from './processes.ts';

/** The fields of a device in `dattocli devices --json` that are used here. */
export interface ListedDevice {
  readonly path: string;
  readonly kernel_name: string;
  readonly size: number;
  readonly used: number | null;
  readonly uuid: string | null;
  readonly label: string | null;
  readonly partition_uuid: string | null;
  readonly partition_label: string | null;
  readonly disk: string | null;
  readonly mounts: readonly { readonly path: string; readonly root: string }[];
  readonly backup: { readonly possible: boolean; readonly how: string };
}

/**
 * Returns the device with this name. Throws if no device or several have the name, or if the device cannot be backed
 * up.
 */
export function chooseDevice(devices: readonly ListedDevice[], name: string): ListedDevice {
  const path = name.startsWith('/') ? resolved(name) : name;
  const [, value = name] = /^(?:UUID|LABEL|PARTUUID|PARTLABEL)=(.*)$/.exec(name) ?? [];
  const found = devices.filter(
    (device) =>
      device.path === path ||
      resolved(device.path) === path ||
      device.mounts.some((mount) => mount.path === path) ||
      [device.uuid, device.label, device.partition_uuid, device.partition_label].includes(value),
  );
  const [device] = found;
  if (device === undefined) throw new Error(`no block device is called ${name}; see: build/dattocli devices`);
  if (found.length > 1)
    throw new Error(
      `${found.length} devices are called ${name}: ${found.map((each) => each.path).join(', ')}`,
    );
  if (!device.backup.possible) throw new Error(`${device.path} cannot be backed up: ${device.backup.how}`);
  return device;
}

/** Throws if `directory` lies on `device`, or on a partition, an LVM volume or a loop device that lies on `device`. */
export async function refuseOnItself(device: ListedDevice, directory: string): Promise<void> {
  const under = await devicesUnder(directory);
  if (under.includes(resolved(device.path)))
    throw new Error(
      `${directory} lies on ${device.path}, which is to be backed up: an image cannot be kept on the device ` +
        `that it is an image of. Name a directory on another disk, or a network filesystem.`,
    );
}

/** Returns the block devices that a directory lies on, down to the disks. */
async function devicesUnder(directory: string): Promise<string[]> {
  const source = await deviceOf(directory);
  if (source === undefined) return [];
  const list = ['--inverse', '--noheadings', '--list', '--output', 'PATH'];
  const lowers = (await command('lsblk', [...list, source])).split('\n').map(resolved);
  const further: string[] = [];
  for (const lower of lowers.filter((path) => /^\/dev\/loop/.test(path))) {
    const file = await command('losetup', ['--noheadings', '--output', 'BACK-FILE', lower]);
    if (file.startsWith('/')) further.push(...(await devicesUnder(file)));
  }
  return [...lowers, ...further];
}

/**
 * Returns the block device of a path, or undefined if there is none. Uses the device number. If the filesystem has a
 * number of its own, as btrfs does, uses the mount table.
 */
async function deviceOf(path: string): Promise<string | undefined> {
  const { dev } = statSync(path);
  // The same split as in gnu_dev_major and gnu_dev_minor.
  const major = Math.floor(dev / 256) % 4096;
  const minor = (dev % 256) + Math.floor(dev / 2 ** 20) * 256;
  const number = `/sys/dev/block/${major}:${minor}`;
  if (existsSync(number)) return `/dev/${basename(realpathSync(number)).replaceAll('!', '/')}`;
  const { output } = await tryCommand('findmnt', [
    '--noheadings',
    '--nofsroot',
    '--output',
    'SOURCE',
    '-T',
    path,
  ]);
  const source = output.split('\n')[0] ?? '';
  return source.startsWith('/dev/') ? source : undefined;
}

/** Returns the path without symbolic links. Returns it unchanged if it does not exist. */
function resolved(path: string): string {
  return statSync(path, { throwIfNoEntry: false }) === undefined ? path : realpathSync(path);
}
