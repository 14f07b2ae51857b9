/**
 * Where a sibling program lies: a worker thread's or child process's own entry file. From the sources it is
 * the `.ts` file; from `build/` it is `build/lib/NAME.js`, since the build bundles every `*-worker.ts`,
 * `*-main.ts` and `src/bin/*.ts` to that one flat folder (docs/build.md), so these names are unique.
 */

/** What every process of ours gives to Node, launchers and child processes alike. */
export const nodeFlags: readonly string[] = [
  // node:sqlite still announces itself as experimental on every start; no user at a terminal needs that.
  '--disable-warning=ExperimentalWarning',
  // SIGUSR1 would open the debugger of a root process on loopback, for every user of the machine.
  '--disable-sigusr1',
];

/**
 * Resolves an entry beside the caller, both from the sources and from the bundles:
 *
 *     new Worker(entryPath(import.meta.url, './copy-worker.ts'))
 *     spawn(process.execPath, [...nodeFlags, fileURLToPath(entryPath(import.meta.url, './guard-main.ts'))])
 *
 * `source` is the entry's `.ts` file relative to the caller's source file. Throws RangeError for a name that
 * the build would not find.
 */
export function entryPath(callerUrl: string, source: string): URL {
  const name = /([^/]+)\.ts$/.exec(source)?.[1];
  if (name === undefined || !/(^|\/)bin\/[^/]+\.ts$|-(worker|main)\.ts$/.test(source))
    throw new RangeError(`${source} is no entry: entries are *-worker.ts, *-main.ts and bin/*.ts`);
  return callerUrl.endsWith('.ts') ? new URL(source, callerUrl) : new URL(`${name}.js`, callerUrl);
}
