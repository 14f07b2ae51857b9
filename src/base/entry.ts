/**
 * Finds the entry file of a worker thread or child process. In the sources the entry file is the `.ts` file. In
 * `build/` it is `build/lib/NAME.js`, because the build bundles every `*-worker.ts`, `*-main.ts` and `src/bin/*.ts`
 * into that one folder (docs/build.md). So these names are unique.
 */

/** The options that every process of this program, launcher or child process, passes to Node. */
export const nodeFlags: readonly string[] = [
  // node:sqlite prints a warning at every start that it is experimental. Users do not need this warning.
  '--disable-warning=ExperimentalWarning',
  // SIGUSR1 would open the debugger of a root process on loopback, where every user of the machine can reach it.
  '--disable-sigusr1',
];

/**
 * Returns the URL of an entry file, both in the sources and in the bundles:
 *
 *     new Worker(entryPath(import.meta.url, './copy-worker.ts'))
 *     spawn(process.execPath, [...nodeFlags, fileURLToPath(entryPath(import.meta.url, './guard-main.ts'))])
 *
 * `source` is the entry's `.ts` file relative to the caller's source file. Throws RangeError for a name that
 * the build does not bundle.
 */
export function entryPath(callerUrl: string, source: string): URL {
  const name = /([^/]+)\.ts$/.exec(source)?.[1];
  if (name === undefined || !/(^|\/)bin\/[^/]+\.ts$|-(worker|main)\.ts$/.test(source))
    throw new RangeError(`${source} is no entry: entries are *-worker.ts, *-main.ts and bin/*.ts`);
  return callerUrl.endsWith('.ts') ? new URL(source, callerUrl) : new URL(`${name}.js`, callerUrl);
}
