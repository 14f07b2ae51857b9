/**
 * Makes freezes of this process wait for each other if they have a filesystem in common. Jobs run in parallel, and so
 * do the devices of a job while they are mapped. One device may be on another: a loop device on the filesystem that
 * holds its file. The kernel refuses a second freeze of a filesystem with EBUSY, as if another program held it.
 */

/** Filesystems that a freeze holds or prepares now, by the kernel name of their device. */
const held = new Set<string>();
const waiting = new Set<() => void>();

/** Waits until no other freeze holds any of the filesystems. The result releases them. Throws the signal's reason. */
export async function freezeTurn(filesystems: Iterable<string>, signal: AbortSignal): Promise<() => void> {
  const names = [...filesystems];
  // All are taken at once, so two freezes never wait for each other in a circle.
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
