/** Whether this kernel can be tracked by blktrace at all, and what stands in the way. */
import { existsSync } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError, errnoCode, toAgentError } from '../../base/errors.ts';
import { openDebugfs } from '../../linux/debugfs.ts';

/** As the eBPF tracker's `TrackingSupport`. */
export interface BlktraceSupport {
  readonly supported: boolean;
  /** Why (not). */
  readonly why: string;
  /** What would help; empty where it is supported. */
  readonly help: string;
}

/**
 * Leaves nothing behind. Whether a certain device can be traced only shows when it is tried. `directory`: any that
 * can be written, for mounting debugfs for an instant where it is not mounted.
 */
export async function blktraceSupport(directory: string): Promise<BlktraceSupport> {
  if (process.getuid?.() !== 0) return no('tracing devices takes root', 'run dattod as root');
  // The kernel gives every disk this folder where it was built with CONFIG_BLK_DEV_IO_TRACE.
  const disks = await readdir('/sys/block').catch(() => []);
  if (disks.length > 0 && !disks.some((name) => existsSync(join('/sys/block', name, 'trace'))))
    return no('this kernel was built without CONFIG_BLK_DEV_IO_TRACE', 'use a distribution kernel');
  try {
    const debugfs = await openDebugfs(directory);
    try {
      if (await isLockedDown(debugfs.path))
        return no(
          'kernel lockdown (Secure Boot) closes debugfs, where traces are read',
          'a kernel with BTF is tracked by eBPF, also under Secure Boot',
        );
    } finally {
      debugfs.close();
    }
  } catch (thrown) {
    const error = explainDebugfs(thrown);
    return no(error.message, error.hint ?? '');
  }
  return { supported: true, why: 'the kernel can trace block devices (blktrace)', help: '' };
}

/**
 * Under lockdown debugfs opens nothing that is not plainly readable by all (fs/debugfs/file.c,
 * debugfs_locked_down): any such file tells.
 */
async function isLockedDown(debugfs: string): Promise<boolean> {
  for (const entry of await readdir(debugfs, { withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(debugfs, entry.name);
    const { mode } = await stat(path);
    if ((mode & 0o7777 & ~0o444) === 0 || (mode & 0o400) === 0) continue;
    try {
      await (await open(path, 'r')).close();
      return false;
    } catch (thrown) {
      if (errnoCode(thrown) === 'EPERM') return true;
    }
  }
  return false;
}

function no(why: string, help: string): BlktraceSupport {
  return { supported: false, why, help };
}

/** Why debugfs could not be mounted. */
export function explainDebugfs(thrown: unknown): AgentError {
  const code = errnoCode(thrown);
  if (code !== 'EPERM' && code !== 'EACCES' && code !== 'ENODEV') return toAgentError(thrown);
  return new AgentError('NOT_SUPPORTED', `debugfs, where traces are read, cannot be mounted (${code})`, {
    hint: 'dattod needs CAP_SYS_ADMIN, and a kernel that was not started with debugfs=off',
    cause: thrown,
  });
}
