/** The kernel's nbd client, where its module is loaded: which of its devices nobody uses. */
import { readdir } from 'node:fs/promises';
import { attribute } from '../../linux/sysfs.ts';

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
