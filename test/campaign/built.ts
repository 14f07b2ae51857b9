/**
 * The programs as the build bundles them, made of the sources as they are now: they start several times quicker than from
 * the sources, and a history starts many.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundle } from '../../scripts/build/bundle.ts';
import { findEntries } from '../../scripts/build/entries.ts';
import { builtVariable } from '../helpers/programs.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Makes `lib/*.js` in a directory that is there, or takes what `./run_tests` has built. Returns the path of `lib`. */
export async function bundledPrograms(directory: string): Promise<string> {
  const built = process.env[builtVariable];
  if (built !== undefined) return join(built, 'lib');
  const outdir = join(directory, 'lib');
  mkdirSync(outdir);
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  await bundle({ root, entries: findEntries(join(root, 'src')), outdir, version, debug: false });
  // Node then need not guess that these are ES modules.
  writeFileSync(join(outdir, 'package.json'), '{ "type": "module" }\n');
  return outdir;
}
