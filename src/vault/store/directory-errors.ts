/** Classifies errnos for a vault in a directory. */
import { AgentError, errnoCode } from '../../base/errors.ts';

/** Temporary errnos: an unreachable server, a stale handle, full tables. */
const passing = new Set([
  'ESTALE',
  'ETIMEDOUT',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'ENETDOWN',
  'ENETUNREACH',
  'ENOTCONN',
  'ECONNREFUSED',
  'ECONNRESET',
  'ESHUTDOWN',
  'EAGAIN',
  'EINTR',
  'EBUSY',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
]);

/**
 * Returns the error for a failed system call. `what` is the operation, such as `writing packs/ab`. Errors without an
 * errno are returned unchanged.
 */
export function directoryFailure(root: string, what: string, cause: unknown): unknown {
  const code = errnoCode(cause);
  if (cause instanceof AgentError || code === undefined || !/^E[A-Z0-9]+$/.test(code)) return cause;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new AgentError('VAULT_FULL', `${root} has no free space: ${what} gave ${code}`, {
      hint:
        code === 'EDQUOT'
          ? 'raise the quota, or forget recovery points and prune'
          : 'make room on its filesystem, or forget recovery points and prune',
      cause,
    });
  if (code === 'EROFS')
    return new AgentError('VAULT_READ_ONLY', `${root} is on a read-only filesystem: ${what} gave EROFS`, {
      hint: 'mount it writable; the kernel also makes a filesystem read-only after errors (see dmesg)',
      cause,
    });
  if (code === 'EACCES' || code === 'EPERM')
    return new AgentError('VAULT_DENIED', `${root} does not permit it: ${what} gave ${code}`, {
      hint: 'check its owner and modes, lsattr, and on NFS the export (root_squash)',
      cause,
    });
  if (passing.has(code))
    return new AgentError('VAULT_UNREACHABLE', `${root} does not answer: ${what} gave ${code}`, {
      hint: 'check that its filesystem is still mounted, and that its server runs',
      cause,
    });
  return new AgentError('VAULT_STORE_ERROR', `${root}: ${what} gave ${code}`, {
    ...(code === 'EIO' ? { hint: 'its disk may be failing; see dmesg' } : {}),
    cause,
  });
}
