/**
 * Mounts of other mount namespaces (containers, services with private mounts). A device that is mounted only there is
 * in use too. Its filesystem can be reached through /proc/PID/root.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type MountEntry, parseMountinfo, readMounts, visibleMounts } from './mountinfo.ts';

/**
 * Returns all mounts of this process's namespace, also covered ones. After them come mounts of block devices that can
 * be reached only in other namespaces, with paths that work here. Processes that end during the call are skipped.
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

/** Returns one process of each mount namespace except our own. */
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

/** Returns a key for the mount's device. For btrfs only the source names the device. */
function deviceKey(entry: MountEntry): string {
  return entry.major === 0 ? entry.source : `${entry.major}:${entry.minor}`;
}
