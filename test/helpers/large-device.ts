/** Large filesystems on sparse files in memory, for tests and benchmarks that depend on the size. */
import { readFileSync } from 'node:fs';
import { makeLoop } from './loop.ts';
import type { EndingTest } from './cleanup.ts';
import type { DaemonPaths } from './daemon.ts';

/** The least metadata that is possible: 12 KiB for each 128 MiB of ext4. */
const mkfsArgs = {
  ext4: [
    ...['-O', 'sparse_super2,^resize_inode', '-b', '4096', '-i', String(8 * 1024 * 1024), '-J', 'size=16'],
    ...['-E', 'lazy_itable_init=1,nodiscard'],
  ],
  xfs: ['-K', '-l', 'size=64m'],
};

/** Makes the filesystem and mounts it, without the kernel's thread that writes inode tables. */
export async function makeLarge(
  t: EndingTest,
  filesystem: 'ext4' | 'xfs',
  size: number,
  directory = '/dev/shm',
): Promise<{ readonly device: string; readonly mountPoint: string }> {
  const { device, mountPoint } = await makeLoop(t, {
    ...{ size, filesystem, mkfsArgs: mkfsArgs[filesystem], mount: true, directory },
    ...(filesystem === 'ext4' ? { mountOptions: 'noinit_itable' } : {}),
  });
  return { device, mountPoint: mountPoint! };
}

/** A line of the daemon's log about the reading of a used map. */
export interface MapReading {
  readonly device: string;
  readonly state: 'live' | 'frozen';
  readonly ms: number;
  readonly groups: number;
  readonly groupsRead: number;
  readonly whyAll?: string;
}

export function mapReadings(daemon: Pick<DaemonPaths, 'logFile'>, device: string): MapReading[] {
  return readFileSync(daemon.logFile, 'utf8')
    .split('\n')
    .filter((line) => line.includes('"used map read"'))
    .map((line) => JSON.parse(line) as MapReading)
    .filter((reading) => reading.device === device);
}
