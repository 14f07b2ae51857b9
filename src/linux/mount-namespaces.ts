/**
 * Mounts of other mount namespaces (containers, services with private mounts): a device that is mounted only
 * there is in use all the same, and its filesystem can be reached through /proc/PID/root.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type MountEntry, parseMountinfo, readMounts, visibleMounts } from './mountinfo.ts';

/**
 * All mounts of this process's namespace, those that another mount covers among them; then those of block devices that
 * can be reached in other namespaces alone, with paths that work from here. Processes that end meanwhile are left out.
 */
export async function readAllMounts(proc = '/proc'): Promise<MountEntry[]> {
  const own = await readMounts(proc);
  const known = new Set(visibleMounts(own).map(deviceKey));
  const result = [...own];
  for (const pid of await onePerNamespace(proc)) {
    const text = await readFile(join(proc, pid, 'mountinfo')).catch(() => undefined);
    if (text === undefined) continue;
    const root = join('/proc', pid, 'root');
    const entries = parseMountinfo(text);
    const foreign = entries.filter((entry) => isBlock(entry) && !known.has(deviceKey(entry)));
    for (const entry of foreign) result.push({ ...entry, path: join(root, entry.path) });
    for (const entry of visibleMounts(foreign)) known.add(deviceKey(entry));
  }
  return result;
}

/** One process of each namespace but our own. */
async function onePerNamespace(proc: string): Promise<string[]> {
  const own = await readlink(join(proc, 'self/ns/mnt')).catch(() => undefined);
  if (own === undefined) return [];
  const processes = new Map<string, string>();
  const pids = (await readdir(proc)).filter((name) => /^\d+$/.test(name));
  await Promise.all(
    pids.map(async (pid) => {
      const namespace = await readlink(join(proc, pid, 'ns/mnt')).catch(() => own);
      if (namespace !== own && !processes.has(namespace)) processes.set(namespace, pid);
    }),
  );
  return [...processes.values()];
}

function isBlock(entry: MountEntry): boolean {
  return entry.major !== 0 || (entry.type === 'btrfs' && entry.source.startsWith('/'));
}

/** btrfs names its device in the source alone. */
function deviceKey(entry: MountEntry): string {
  return entry.major === 0 ? entry.source : `${entry.major}:${entry.minor}`;
}
