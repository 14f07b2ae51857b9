/** What errnos mean for a vault in a directory. */
import { AgentError, errnoCode } from '../../base/errors.ts';

/** Errnos that pass by themselves: a server that is away, a handle gone stale, tables that are full. */
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

/** What a failed system call means; `what` is what it was to do, such as `writing packs/ab`. Strangers pass. */
export function directoryFailure(root: string, what: string, cause: unknown): unknown {
  const code = errnoCode(cause);
  if (cause instanceof AgentError || code === undefined || !/^E[A-Z0-9]+$/.test(code)) return cause;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new AgentError('VAULT_FULL', `${root} has no room left: ${what} gave ${code}`, {
      hint:
        code === 'EDQUOT'
          ? 'raise the quota, or forget recovery points and prune'
          : 'make room on its filesystem, or forget recovery points and prune',
      cause,
    });
  if (code === 'EROFS')
    return new AgentError('VAULT_READ_ONLY', `${root} lies on something read-only: ${what} gave EROFS`, {
      hint: 'mount it writable; the kernel also makes a filesystem read-only after errors (see dmesg)',
      cause,
    });
  if (code === 'EACCES' || code === 'EPERM')
    return new AgentError('VAULT_DENIED', `${root} does not allow it: ${what} gave ${code}`, {
      hint: 'look at its owner and modes, at lsattr, and on NFS at the export (root_squash)',
      cause,
    });
  if (passing.has(code))
    return new AgentError('VAULT_UNREACHABLE', `${root} does not answer: ${what} gave ${code}`, {
      hint: 'see whether its filesystem is still mounted, and whether its server runs',
      cause,
    });
  return new AgentError('VAULT_STORE_ERROR', `${root}: ${what} gave ${code}`, {
    ...(code === 'EIO' ? { hint: 'its disk may be failing; see dmesg' } : {}),
    cause,
  });
}
