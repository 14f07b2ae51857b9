/** Lists the BPF objects in the kernel by bpftool (Debian package bpftool). */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { exec } from './exec.ts';

const kinds = ['prog', 'map', 'link'] as const;
type Kind = (typeof kinds)[number];

/** Programs, maps and links by the kernel's ids, like `prog 12`. */
export type LoadedThings = readonly string[];

/** Lists the objects that are pinned in a directory. */
export async function pinnedThings(directory: string): Promise<LoadedThings> {
  const things: string[] = [];
  for (const name of readdirSync(directory)) {
    const kind: Kind = name.endsWith('-link') ? 'link' : /^(request|bio)-/.test(name) ? 'prog' : 'map';
    const { stdout } = await exec('bpftool', ['-j', kind, 'show', 'pinned', join(directory, name)]);
    things.push(`${kind} ${(JSON.parse(stdout) as { id: number }).id}`);
  }
  return things;
}

/** Returns those of the given objects that the kernel still holds. */
export async function stillLoaded(things: LoadedThings): Promise<LoadedThings> {
  const all = new Set<string>();
  for (const kind of kinds) {
    const { stdout } = await exec('bpftool', ['-j', kind, 'show']);
    for (const { id } of JSON.parse(stdout) as { id: number }[]) all.add(`${kind} ${id}`);
  }
  return things.filter((thing) => all.has(thing));
}
