/** Finds the device that a person named, and refuses a directory that lies on it. */
import { existsSync, realpathSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { command, tryCommand } from './processes.ts';

/** What is used here of a line of `dattocli devices --json`. */
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

/** The one device that answers to `name`. Throws where none or several do, or it cannot be backed up. */
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

/** Throws where `directory` lies on `device`, or on something that does (a partition, LVM, a loop device). */
export async function refuseOnItself(device: ListedDevice, directory: string): Promise<void> {
  const under = await devicesUnder(directory);
  if (under.includes(resolved(device.path)))
    throw new Error(
      `${directory} lies on ${device.path}, which is to be backed up: an image cannot be kept on the device ` +
        `that it is an image of. Name a directory on another disk, or a network filesystem.`,
    );
}

/** The block devices that a directory lies on, down to the disks. */
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

/** By device number, or where the filesystem has one of its own (btrfs) by the mount table; undefined for no device. */
async function deviceOf(path: string): Promise<string | undefined> {
  const { dev } = statSync(path);
  // As gnu_dev_major and gnu_dev_minor take it apart.
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

/** The path without links; as it is where it does not exist. */
function resolved(path: string): string {
  return statSync(path, { throwIfNoEntry: false }) === undefined ? path : realpathSync(path);
}
