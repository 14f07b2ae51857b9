/**
 * The devices of the kernel's nbd client: which one is free, and who uses one. All of it comes from sysfs. The kernel makes
 * a file `pid` when a device is connected, and removes the file when it is disconnected. So the inode of the file is
 * different for every connection. The file names the process that connected the device. With netlink, nbd-client ends at
 * once; before Linux 5.16 the file may then show any number.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { attribute } from '../../linux/sysfs.ts';

/** Identifies an attachment of ours, within one boot. */
export interface NbdAttachment {
  /** The process that connects the device. Known before it connects. */
  readonly pid: number;
  /** Inode of the file `pid`; undefined until the device is connected. */
  readonly connection: string | undefined;
}

/** Returns a free device such as `/dev/nbd3`; undefined if there is none. A device in use has a pid and a size. */
export async function freeNbdDevice(sys = '/sys'): Promise<string | undefined> {
  const names = (await readdir(`${sys}/block`).catch(() => []))
    .filter((name) => /^nbd\d+$/.test(name))
    .sort((a, b) => Number(a.slice(3)) - Number(b.slice(3)));
  for (const name of names) {
    const place = `${sys}/block/${name}`;
    if ((await attribute(place, 'pid')) !== undefined) continue;
    if (Number((await attribute(place, 'size')) ?? 0) === 0) return `/dev/${name}`;
  }
  return undefined;
}

/** Returns whether a device is not connected (`none`), connected by us, or connected by another process. */
export async function nbdUser(
  device: string,
  ours: NbdAttachment | undefined,
  sys = '/sys',
): Promise<'none' | 'ours' | 'other'> {
  const found = await nbdAttachment(device, sys);
  if (found === undefined) return 'none';
  const same =
    ours?.connection === undefined ? found.pid === ours?.pid : found.connection === ours.connection;
  return same ? 'ours' : 'other';
}

/** Returns the current connection of a device; undefined if it is not connected. */
export async function nbdAttachment(
  device: string,
  sys = '/sys',
): Promise<{ readonly pid: number; readonly connection: string } | undefined> {
  const place = join(sys, 'block', device.replace('/dev/', ''));
  const pid = Number(await attribute(place, 'pid'));
  const node = await stat(join(place, 'pid'), { bigint: true }).catch(() => undefined);
  return pid > 0 && node !== undefined ? { pid, connection: String(node.ino) } : undefined;
}
