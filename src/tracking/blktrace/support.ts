/** Whether this kernel can be tracked by blktrace at all, and what stands in the way. */
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError, errnoCode } from '../../base/errors.ts';

export interface BlktraceSupport {
  readonly supported: boolean;
  /** Why not; undefined where it is. */
  readonly reason: string | undefined;
  /** What would help. */
  readonly hint: string | undefined;
}

/** Touches nothing. Whether a certain device can be traced only shows when it is tried. */
export async function blktraceSupport(
  roots: { readonly sys?: string; readonly uid?: number } = {},
): Promise<BlktraceSupport> {
  const { sys = '/sys', uid = process.getuid?.() ?? 0 } = roots;
  if (uid !== 0) return no('tracing devices takes root', 'run dattod as root');
  const lockdown = /\[(\w+)\]/.exec(
    await readFile(join(sys, 'kernel/security/lockdown'), 'utf8').catch(() => ''),
  );
  if (lockdown !== null && lockdown[1] !== 'none')
    return no(
      `kernel lockdown (${lockdown[1] ?? ''}) closes debugfs, where traces are read`,
      'a kernel with BTF is tracked by eBPF, also under Secure Boot',
    );
  // The kernel gives every disk this folder where it was built with CONFIG_BLK_DEV_IO_TRACE.
  const disks = await readdir(join(sys, 'block')).catch(() => []);
  if (disks.length > 0 && !disks.some((name) => existsSync(join(sys, 'block', name, 'trace'))))
    return no('this kernel was built without CONFIG_BLK_DEV_IO_TRACE', 'use a distribution kernel');
  const filesystems = await readFile('/proc/filesystems', 'utf8').catch(() => 'debugfs');
  if (!filesystems.includes('debugfs')) return no('this kernel has no debugfs', 'use a distribution kernel');
  return { supported: true, reason: undefined, hint: undefined };
}

function no(reason: string, hint: string): BlktraceSupport {
  return { supported: false, reason, hint };
}

/** Why debugfs could not be mounted. */
export function explainDebugfs(thrown: unknown): unknown {
  const code = errnoCode(thrown);
  if (code !== 'EPERM' && code !== 'EACCES' && code !== 'ENODEV') return thrown;
  return new AgentError('NOT_SUPPORTED', `debugfs, where traces are read, cannot be mounted (${code})`, {
    hint: 'dattod needs CAP_SYS_ADMIN, and a kernel that was not started with debugfs=off',
    cause: thrown,
  });
}
