/**
 * The facts needed to rebuild a machine around restored devices: partition tables, boot areas, LVM, md and crypt
 * set-up, fstab, and how it boots. A recovery point keeps them (docs/formats/vault.md, "Points"). Nothing here fails:
 * `problems` names each fact that could not be read. Bounded in time (some 30 seconds, with dead disks) and size.
 */
import { release } from 'node:os';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { KiB } from '../base/bytes.ts';
import { errnoCode } from '../base/errors.ts';
import { type OutputOf, outputOf } from '../linux/program.ts';
import { type DiskLayout, readDiskLayout } from './disk-layout.ts';
import type { Device } from './device.ts';
import { listDevices } from './inventory.ts';
import { LayoutNotes } from './layout-notes.ts';
import { readVolumeGroups } from './volume-groups.ts';

export interface MachineLayout {
  readonly boot: 'uefi' | 'bios';
  /** /proc/cmdline. */
  readonly command_line: string;
  /** Release of the kernel that was running. */
  readonly kernel: string;
  /** `x64`, `arm64`. */
  readonly architecture: string;
  /** Texts by path: fstab, crypttab and similar files, if they exist. */
  readonly files: Readonly<Record<string, string>>;
  readonly disks: readonly DiskLayout[];
  /** The devices, and which of them lie on others. */
  readonly devices: readonly DeviceLayout[];
  /** Volume groups by name: the text that `vgcfgrestore` takes. */
  readonly lvm: Readonly<Record<string, string>>;
  /** Output of `mdadm --detail --scan`, or null without md. */
  readonly md: string | null;
  /** LUKS headers by path of the device, as `cryptsetup luksDump` describes them. They hold no keys. */
  readonly luks: Readonly<Record<string, string>>;
  /** Output of `efibootmgr -v`, or null. */
  readonly efi_boot: string | null;
  /** Facts that are missing above, and why. */
  readonly problems: readonly string[];
}

export interface DeviceLayout {
  readonly path: string;
  readonly kernel_name: string;
  readonly kind: Device['kind'];
  /** Bytes. */
  readonly size: number;
  readonly sector_size: number;
  /** Kernel names of the devices that it lies on. */
  readonly lowers: readonly string[];
  readonly filesystem: { readonly type: string; readonly uuid: string; readonly label: string } | null;
  readonly mounts: readonly { readonly path: string; readonly root: string }[];
}

export interface LayoutOptions {
  /** The root directory. Default `/`. */
  readonly root?: string | undefined;
  readonly run?: OutputOf | undefined;
  readonly devices?: (() => Promise<readonly Device[]>) | undefined;
  readonly signal?: AbortSignal | undefined;
}

const texts = ['etc/fstab', 'etc/crypttab', 'etc/mdadm/mdadm.conf', 'etc/mdadm.conf', 'etc/default/grub'];
/** Longest text, in characters. */
const longestText = 128 * KiB;
/** Bounds the list, since machines with thousands of loop devices (snap) exist. */
const mostDevices = 2000;
const mostMounts = 20;

export async function machineLayout(options: LayoutOptions = {}): Promise<MachineLayout> {
  const { root = '/', signal } = options;
  const run = options.run ?? outputOf;
  const notes = new LayoutNotes(signal);

  const devices = await notes.attempt('the devices', async () => (options.devices ?? listDevices)(), []);
  if (devices.length > mostDevices)
    notes.add(`${devices.length} devices; the first ${mostDevices} are listed`);

  const boot = (await exists(join(root, 'sys/firmware/efi'))) ? 'uefi' : 'bios';
  const has = (type: string): Device[] => devices.filter(({ filesystem }) => filesystem?.type === type);
  const printed = async (program: string, ...args: string[]): Promise<string | null> => {
    const text = await notes.attempt(program, () => run(program, args, { signal }), '');
    if (text === undefined) notes.add(`${program} is not installed`);
    return text === undefined ? null : notes.bounded(program, text, longestText);
  };

  const commandLine = await readText(join(root, 'proc/cmdline'), notes);
  const files: Record<string, string> = {};
  for (const name of texts) {
    const text = await readText(join(root, name), notes);
    if (text !== undefined) files[`/${name}`] = text;
  }
  const disks: DiskLayout[] = [];
  for (const device of disksOf(devices))
    disks.push(await readDiskLayout(device, { boot, run, notes, sys: join(root, 'sys'), signal }));
  const luks: Record<string, string> = {};
  for (const { path } of has('crypto_LUKS')) {
    const text = await printed('cryptsetup', 'luksDump', path);
    if (text !== null && text !== '') luks[path] = text;
  }

  return {
    boot,
    command_line: commandLine?.trim() ?? '',
    kernel: release(),
    architecture: process.arch,
    files,
    disks,
    devices: devices.slice(0, mostDevices).map(describe),
    lvm: has('LVM2_member').length > 0 ? await readVolumeGroups({ run, notes, signal }) : {},
    md: devices.some(({ kind }) => kind === 'md') ? await printed('mdadm', '--detail', '--scan') : null,
    luks,
    efi_boot: boot === 'uefi' ? await printed('efibootmgr', '-v') : null,
    problems: notes.problems,
  };
}

/** Returns disks, and all other devices that have partitions. */
function disksOf(devices: readonly Device[]): Device[] {
  const divided = new Set(devices.map(({ partition }) => partition?.disk));
  return devices.filter(({ kind, path }) => kind === 'disk' || divided.has(path));
}

function describe(device: Device): DeviceLayout {
  const { filesystem } = device;
  return {
    path: device.path,
    kernel_name: device.kernelName,
    kind: device.kind,
    size: device.size,
    sector_size: device.sectorSize,
    lowers: device.lowers,
    filesystem:
      filesystem === undefined
        ? null
        : { type: filesystem.type, uuid: filesystem.uuid ?? '', label: filesystem.label ?? '' },
    mounts: device.mounts.slice(0, mostMounts).map(({ path, root }) => ({ path, root })),
  };
}

async function readText(path: string, notes: LayoutNotes): Promise<string | undefined> {
  try {
    const found = await stat(path);
    if (!found.isFile()) return undefined;
    if (found.size > longestText) {
      notes.add(`${path}: ${found.size} bytes are too much`);
      return undefined;
    }
    return notes.bounded(path, await readFile(path, 'utf8'));
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT' && errnoCode(error) !== 'ENOTDIR')
      notes.add(`${path}: ${errnoCode(error) ?? String(error)}`);
    return undefined;
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
