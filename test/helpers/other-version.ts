/** Another version of the agent for tests of upgrades: a copy of the sources with changes. */
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { scratchFor } from './backup.ts';
import type { EndingTest } from './cleanup.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Replaces `from`, which has to exist in `file`, by `to`. */
export interface Change {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

/** Returns the path of its dattod, for `entry` of `startDaemon`. `version` is the version that it reports. */
export function otherVersion(t: EndingTest, version: string, changes: readonly Change[] = []): string {
  const directory = join(scratchFor(t), version);
  mkdirSync(directory);
  cpSync(join(root, 'src'), join(directory, 'src'), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'));
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<string, unknown>;
  writeFileSync(join(directory, 'package.json'), JSON.stringify({ ...manifest, version }));
  for (const { file, from, to } of changes) {
    const path = join(directory, file);
    const text = readFileSync(path, 'utf8');
    if (!text.includes(from)) throw new Error(`${file} has no ${from}`);
    writeFileSync(path, text.replace(from, to));
  }
  return join(directory, 'src/bin/dattod.ts');
}
