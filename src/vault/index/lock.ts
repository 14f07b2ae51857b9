/**
 * One refresh of an index at a time on this machine, and one replacement of its file: flock on files beside it, which
 * ends with its holder. So what a refresh enters is never older than what a later one has already gone by.
 */
import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { tryLock } from '../../linux/flock.ts';

const pollMs = 50;

function tryIndexLock(path: string): (() => void) | undefined {
  const fd = openSync(path, 'a', 0o600);
  if (tryLock(fd)) return () => closeSync(fd);
  closeSync(fd);
  return undefined;
}

/** Waits for the right to refresh; rejects with the signal's reason. The result gives it back. */
export async function refreshLock(indexPath: string, signal?: AbortSignal): Promise<() => void> {
  for (;;) {
    signal?.throwIfAborted();
    const release = tryIndexLock(`${indexPath}-refresh`);
    if (release !== undefined) return release;
    await sleep(pollMs, undefined, signal === undefined ? {} : { signal });
  }
}

/** Blocks the thread: replacing a file takes milliseconds, and nobody awaits anything while he holds this. */
export function replaceLock(indexPath: string): () => void {
  for (;;) {
    const release = tryIndexLock(`${indexPath}-replace`);
    if (release !== undefined) return release;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pollMs);
  }
}
