/**
 * Distinguishes a device from its clones and snapshots, which have the same UUIDs. The identity is the UUID of
 * device-mapper or md, or the file behind a loop device. For a disk it is the World Wide Identifier or serial number,
 * and for a partition also its number on the disk. Recovery points keep it (docs/formats/vault.md, "Points").
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { attribute } from '../linux/sysfs.ts';
import type { Device } from './device.ts';

/** Returns the identity. Undefined if there is none: a disk may report no name, or the same one as another disk. */
export async function deviceIdentity(
  {
    kind,
    kernelName,
    partition,
    lowers,
    backingFile,
  }: Pick<Device, 'kind' | 'kernelName' | 'partition' | 'lowers' | 'backingFile'>,
  sys = '/sys',
): Promise<string | undefined> {
  const block = join(sys, 'block');
  if (partition !== undefined) {
    const [disk] = lowers;
    const identity = disk === undefined ? undefined : await identityOfDisk(block, disk);
    return identity === undefined ? undefined : `${identity} partition ${partition.number}`;
  }
  if (kind === 'loop' || kind === 'disk' || kind === 'dm' || kind === 'md' || kind === 'other')
    return identityOfDisk(block, kernelName, backingFile);
  return undefined;
}

async function identityOfDisk(block: string, name: string, file?: string): Promise<string | undefined> {
  const dm = await attribute(join(block, name), 'dm/uuid');
  if (dm !== undefined && dm !== '') return `dm ${dm}`;
  const md = await attribute(join(block, name), 'md/uuid');
  if (md !== undefined && md !== '') return `md ${md}`;
  const backing = file ?? (await attribute(join(block, name), 'loop/backing_file'));
  if (backing !== undefined) {
    const offset = (await attribute(join(block, name), 'loop/offset')) ?? '0';
    return `file ${backing}${offset === '0' ? '' : ` at ${offset}`}`;
  }
  const own = await hardwareName(block, name);
  if (own === undefined) return undefined;
  // Several disks of a virtual machine, or in cheap enclosures, may report the same name.
  for (const other of await readdir(block).catch(() => []))
    if (other !== name && (await hardwareName(block, other)) === own) return undefined;
  return `disk ${own}`;
}

async function hardwareName(block: string, name: string): Promise<string | undefined> {
  for (const each of ['wwid', 'device/wwid', 'serial', 'device/serial']) {
    const text = (await attribute(join(block, name), each))?.trim();
    if (text !== undefined && text !== '') return text;
  }
  return undefined;
}
