/** The LVM set-up as text that `vgcfgrestore` takes. vgcfgbackup(8) writes a file for each volume group. */
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MiB } from '../base/bytes.ts';
import type { OutputOf } from '../linux/program.ts';
import type { LayoutNotes } from './layout-notes.ts';

/** Longest text, in bytes. Volume groups with thousands of thin volumes have long texts. */
const longest = 2 * MiB;

/** Returns the texts by name of the volume group. */
export async function readVolumeGroups(context: {
  readonly run: OutputOf;
  readonly notes: LayoutNotes;
  readonly signal: AbortSignal | undefined;
}): Promise<Record<string, string>> {
  const { run, notes, signal } = context;
  const groups: Record<string, string> = {};
  const directory = await mkdtemp(join(tmpdir(), 'volume-groups-'));
  try {
    // Read-only: the program takes no locks and does not wait for a process that holds them.
    const args = ['--readonly', '-f', join(directory, '%s')];
    const printed = await notes.attempt('vgcfgbackup', () => run('vgcfgbackup', args, { signal }), '');
    if (printed === undefined) notes.add('vgcfgbackup is not installed');
    for (const name of (await readdir(directory)).sort()) {
      const path = join(directory, name);
      const { size } = await stat(path);
      if (size > longest) notes.add(`volume group ${name}: ${size} bytes are too much`);
      else groups[name] = notes.bounded(`volume group ${name}`, await readFile(path, 'utf8'));
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return groups;
}
