/**
 * Freezes of this process that have a filesystem in common take turns. Jobs run side by side, and so do the devices of a
 * job while they are mapped; one of them may lie on another (a loop device on the filesystem that holds its file). The
 * kernel freezes a filesystem once, and answers EBUSY as if another program held it.
 */

/** Filesystems, by the kernel name of their device, that a freeze holds or prepares now. */
const held = new Set<string>();
const waiting = new Set<() => void>();

/** Waits until no other freeze has any of the filesystems; the result gives them back. Throws the signal's reason. */
export async function freezeTurn(filesystems: Iterable<string>, signal: AbortSignal): Promise<() => void> {
  const names = [...filesystems];
  // All at once, so that two freezes never wait for each other.
  while (names.some((name) => held.has(name))) {
    signal.throwIfAborted();
    await nextEnd(signal);
  }
  signal.throwIfAborted();
  for (const name of names) held.add(name);
  return () => {
    for (const name of names.splice(0)) held.delete(name);
    for (const wake of [...waiting]) wake();
  };
}

function nextEnd(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = (): void => {
      waiting.delete(wake);
      signal.removeEventListener('abort', wake);
      resolve();
    };
    waiting.add(wake);
    signal.addEventListener('abort', wake, { once: true });
  });
}
