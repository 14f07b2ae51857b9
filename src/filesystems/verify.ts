/**
 * A used map whose `everything` can be relied on: it is walked once to see that it holds, then read anew. For
 * those who cannot take back what they did with the first extents when a later one turns out unreadable.
 */
import { AgentError } from '../base/errors.ts';
import { type UsedMap, everythingUsed } from './used-map.ts';

/** `read` is called twice where all is well. `size` in bytes, for the map in which everything is used. */
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

/** The reason why a map could not be read; throws again what is no such reason (cancelled, device gone). */
export function unreadableReason(error: unknown): string {
  if (error instanceof AgentError && unreadable.has(error.code)) return error.message;
  throw error;
}

const unreadable: ReadonlySet<string> = new Set(['FILESYSTEM_UNREADABLE', 'DEVICE_READ_ERROR']);
