/**
 * Finds the sources that become bundles of their own: the programs `src/bin/*.ts`, the worker threads `*-worker.ts` and
 * the child processes `*-main.ts`. The same rule is in src/base/entry.ts.
 */
import { globSync } from 'node:fs';
import { basename, join } from 'node:path';

export interface Entry {
  /** Name of the bundle. If the entry is a program, also the name of its launcher. */
  readonly name: string;
  readonly source: string;
  /** Whether the entry is a program, which gets a launcher. */
  readonly program: boolean;
}

/** Returns the entries under `src`, sorted by name. Throws if two have the same name. */
export function findEntries(src: string): Entry[] {
  const sources = globSync(['bin/*.ts', '**/*-worker.ts', '**/*-main.ts'], { cwd: src });
  const entries = sources
    .filter((path) => !path.endsWith('.test.ts'))
    .map((path) => ({
      name: basename(path, '.ts'),
      source: join(src, path),
      program: path.startsWith('bin/') && !/-(worker|main)\.ts$/.test(path),
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const [index, entry] of entries.entries())
    if (entries[index + 1]?.name === entry.name)
      throw new Error(`two entries are named ${entry.name}: ${entry.source}, ${entries[index + 1]?.source}`);
  return entries;
}
