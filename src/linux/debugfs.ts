/**
 * Opens debugfs (Documentation/filesystems/debugfs.rst). If it is not mounted, it is mounted for this process only: on
 * a temporary directory for a moment, then detached and kept open by a descriptor. So no mount is left if the process
 * dies.
 */
import { closeSync, constants, mkdtempSync, openSync, rmdirSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { checked, declare } from './libc.ts';
import { readMounts } from './mountinfo.ts';

/** DEBUGFS_MAGIC, include/uapi/linux/magic.h. */
const magic = 0x64626720;
const MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8;
const MNT_DETACH = 2;
// include/uapi/asm-generic/fcntl.h; Node has no name for it.
const O_PATH = 0o10000000;

const mountCall = declare<
  [source: string, target: string, type: string, flags: number, options: string | null]
>('mount', 'int', ['const char *', 'const char *', 'const char *', 'uint64', 'const char *']);
const unmountCall = declare<[target: string, flags: number]>('umount2', 'int', ['const char *', 'int']);

export interface Debugfs {
  /** Path of the debugfs for this process. */
  readonly path: string;
  close(): void;
}

/**
 * Opens debugfs. `directory` must be writable; it is used only for the moment of mounting. Errors are SystemCallErrors.
 * EPERM: no permission to mount, or the kernel is configured to hide debugfs. ENODEV: the kernel has no debugfs.
 */
export async function openDebugfs(directory: string): Promise<Debugfs> {
  for (const mount of await readMounts())
    if (mount.type === 'debugfs' && mount.root === '/' && isDebugfs(mount.path))
      return { path: mount.path, close: () => undefined };
  const place = mkdtempSync(join(directory, 'debugfs-'));
  try {
    checked(mountCall, ['debugfs', place, 'debugfs', MS_NOSUID_NODEV_NOEXEC, null], 'mount', 'debugfs');
    try {
      const fd = openSync(place, O_PATH | constants.O_DIRECTORY);
      return { path: `/proc/self/fd/${fd}`, close: () => closeSync(fd) };
    } finally {
      checked(unmountCall, [place, MNT_DETACH], 'umount2', place);
    }
  } finally {
    rmdirSync(place);
  }
}

function isDebugfs(path: string): boolean {
  try {
    return statfsSync(path).type === magic;
  } catch {
    return false;
  }
}
