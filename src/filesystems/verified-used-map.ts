/**
 * Makes a used map whose `everything` is reliable: it is walked once as a check, then read again. For callers that
 * cannot take back work on the first extents if a later one turns out unreadable.
 */
import { AgentError } from '../base/errors.ts';
import { type UsedMap, everythingUsed } from './used-map.ts';

/** `read` is called twice if there is no error. `size` in bytes, for the map in which everything is used. */
export async function verifiedUsedMap(size: number, read: () => Promise<UsedMap>): Promise<UsedMap> {
  const trial = await read();
  if (trial.everything) return trial;
  try {
    // eslint-disable-next-line @typescript-eslint/no-unused-vars -- only that it ends well matters here
    for await (const _ of trial.extents);
  } catch (error) {
    const reason = unreadableReason(error);
    const map = everythingUsed(size, reason, trial.filesystem);
    return { ...map, warnings: [...trial.warnings, reason] };
  }
  return read();
}

/** Returns the reason why a map could not be read. Throws every other error again (cancelled, device gone). */
export function unreadableReason(error: unknown): string {
  if (error instanceof AgentError && unreadable.has(error.code)) return error.message;
  throw error;
}

const unreadable: ReadonlySet<string> = new Set(['FILESYSTEM_UNREADABLE', 'DEVICE_READ_ERROR']);
