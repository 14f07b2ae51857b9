/**
 * Allows one refresh of an index at a time on this machine, and one replacement of its file. It uses flock on files
 * beside it, which ends with its process. So a refresh never adds data that is older than the last refresh.
 */
import { closeSync, openSync } from 'node:fs';
import type { Clock } from '../../base/clock.ts';
import { tryLock } from '../../linux/flock.ts';

const pollMs = 50;

function tryIndexLock(path: string): (() => void) | undefined {
  const fd = openSync(path, 'a', 0o600);
  if (tryLock(fd)) return () => closeSync(fd);
  closeSync(fd);
  return undefined;
}

/** Waits for the refresh lock; rejects with the signal's reason. The result releases it. */
export async function refreshLock(
  { path, clock }: { readonly path: string; readonly clock: Clock },
  signal?: AbortSignal,
): Promise<() => void> {
  for (;;) {
    signal?.throwIfAborted();
    const release = tryIndexLock(`${path}-refresh`);
    if (release !== undefined) return release;
    await clock.sleep(pollMs, signal);
  }
}

/** Blocks the thread. Replacing a file takes milliseconds, and the holder never waits for other work. */
export function replaceLock(indexPath: string): () => void {
  for (;;) {
    const release = tryIndexLock(`${indexPath}-replace`);
    if (release !== undefined) return release;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pollMs);
  }
}
