/** Checks if blktrace can track with this kernel at all, and says what prevents it. */
import { existsSync } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError, errnoCode, toAgentError } from '../../base/errors.ts';
import { openDebugfs } from '../../linux/debugfs.ts';

/** The same as the eBPF tracker's `TrackingSupport`. */
export interface BlktraceSupport {
  readonly supported: boolean;
  /** Why tracking is supported, or why not. */
  readonly why: string;
  /** Steps that would help; empty if tracking is supported. */
  readonly help: string;
}

/**
 * Leaves nothing behind. Only an attempt shows if a certain device can be traced. `directory`: any writable directory.
 * debugfs is mounted there for an instant if it is not mounted.
 */
export async function blktraceSupport(directory: string): Promise<BlktraceSupport> {
  if (process.getuid?.() !== 0) return no('tracing devices takes root', 'run dattod as root');
  // If the kernel was built with CONFIG_BLK_DEV_IO_TRACE, every disk has this folder.
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
 * Under lockdown, debugfs opens only files that are plainly readable by all (fs/debugfs/file.c, debugfs_locked_down).
 * So any other file shows if the kernel is locked down.
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

/** Returns the reason why debugfs could not be mounted. */
export function explainDebugfs(thrown: unknown): AgentError {
  const code = errnoCode(thrown);
  if (code !== 'EPERM' && code !== 'EACCES' && code !== 'ENODEV') return toAgentError(thrown);
  return new AgentError('NOT_SUPPORTED', `debugfs, where traces are read, cannot be mounted (${code})`, {
    hint: 'dattod needs CAP_SYS_ADMIN, and a kernel that was not started with debugfs=off',
    cause: thrown,
  });
}
