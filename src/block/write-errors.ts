/** Turns errnos of writing into errors of targets: full, read-only, in use, or failed. */
import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { boundedCall } from '../base/bounded-call.ts';
import { AgentError, errnoCode } from '../base/errors.ts';
import { describeUses, splitDeviceNumber } from '../linux/device-uses.ts';

/** Returns the error for a failed open of a target. For a busy device, finds out how it is used. */
export async function targetOpenFailure(path: string, cause: unknown): Promise<unknown> {
  const code = errnoCode(cause);
  if (cause instanceof AgentError || code === undefined) return cause;
  switch (code) {
    case 'EBUSY': {
      const node = await statIfExisting(path);
      const uses = node === undefined ? [] : await describeUses(splitDeviceNumber(node.rdev));
      const who = uses.length === 0 ? 'in use (opened exclusively by another program)' : uses.join(', ');
      return new AgentError('DEVICE_BUSY', `${path} cannot be written: it is ${who}`, {
        hint: 'unmount or stop what uses it, or choose another target',
        cause,
      });
    }
    case 'EROFS':
      return new AgentError('TARGET_READ_ONLY', `${path} lies on something read-only`, { cause });
    case 'EACCES':
    case 'EPERM':
      if (process.getuid?.() === 0)
        return new AgentError('TARGET_READ_ONLY', `${path} does not allow writing, even to root (${code})`, {
          hint: 'blockdev --getro and lsattr show whether the device or file is write-protected',
          cause,
        });
      return new AgentError('NO_PERMISSION', `${path} may not be written`, { hint: 'run as root', cause });
    case 'ENOENT':
    case 'ENOTDIR':
      return new AgentError('FILE_ERROR', `${path} cannot be opened: there is no such file or directory`, {
        hint: 'make its directory first; the image file itself is made if it is missing',
        cause,
      });
    default:
      return targetFailure(path, 'opening it', cause);
  }
}

/** Returns the error for a failed write, flush or zeroing. `what` names the operation in the message. */
export function targetFailure(name: string, what: string, cause: unknown): unknown {
  const code = errnoCode(cause);
  if (cause instanceof AgentError || code === undefined) return cause;
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG')
    return new AgentError('TARGET_FULL', `${name} has no room left: ${what} gave ${code}`, {
      hint: 'make room there, then start again',
      cause,
    });
  if (code === 'EROFS' || code === 'EPERM')
    return new AgentError('TARGET_READ_ONLY', `${name} cannot be written: ${what} gave ${code}`, { cause });
  return new AgentError('TARGET_WRITE_ERROR', `${name}: ${what} gave ${code}`, { cause });
}

/** True if the operation is not supported. ENODEV and ENOTTY come from the type of the file or device. */
export function isUnsupported(thrown: unknown): boolean {
  return ['EOPNOTSUPP', 'ENOSYS', 'ENODEV', 'ENOTTY'].includes(errnoCode(thrown) ?? '');
}

/** Returns undefined if nothing is at the path. Throws NO_ANSWER if its filesystem hangs. */
export async function statIfExisting(path: string): Promise<Stats | undefined> {
  try {
    return await boundedCall('stat', path, () => stat(path));
  } catch (thrown) {
    if (errnoCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
}
