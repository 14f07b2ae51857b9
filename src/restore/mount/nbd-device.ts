/**
 * The kernel's nbd client, where its module is loaded: which of its devices nobody uses, and whose one is. All of it is
 * in sysfs, where a file `pid` is made when a device is connected and removed when it is disconnected: so its inode is
 * another one for every connection. It names the process that connected the device, also after that has ended
 * (nbd-client does, where it speaks netlink); but then it may say anything before Linux 5.16.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { attribute } from '../../linux/sysfs.ts';

/** By what an attachment of ours is known again; only within one boot. */
export interface NbdAttachment {
  /** Of the process that connected the device; known before it does. */
  readonly pid: number;
  /** Inode of the file `pid`; undefined until the device was seen connected. */
  readonly connection: string | undefined;
}

/** `/dev/nbd3`; undefined where there is none. A device in use has a pid, and a size. */
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

/** Who has connected a device: nobody (any more), we, or somebody else, who is none of our business. */
export async function nbdUser(
  device: string,
  ours: NbdAttachment | undefined,
  sys = '/sys',
): Promise<'nobody' | 'ours' | 'other'> {
  const found = await nbdAttachment(device, sys);
  if (found === undefined) return 'nobody';
  const same =
    ours?.connection === undefined ? found.pid === ours?.pid : found.connection === ours.connection;
  return same ? 'ours' : 'other';
}

/** Undefined where it is not connected. */
export async function nbdAttachment(
  device: string,
  sys = '/sys',
): Promise<{ readonly pid: number; readonly connection: string } | undefined> {
  const place = join(sys, 'block', device.replace('/dev/', ''));
  const pid = Number(await attribute(place, 'pid'));
  const node = await stat(join(place, 'pid'), { bigint: true }).catch(() => undefined);
  return pid > 0 && node !== undefined ? { pid, connection: String(node.ino) } : undefined;
}
