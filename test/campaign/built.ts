/**
 * The programs as the build bundles them, made from the current sources. They start several times quicker
 * than from the sources, and a history starts many.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundle } from '../../scripts/build/bundle.ts';
import { findEntries } from '../../scripts/build/entries.ts';
import { builtVariable } from '../helpers/programs.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Makes `lib/*.js` in an existing directory, or uses the build of `./run_tests`. Returns the path of `lib`.
 */
export async function bundledPrograms(directory: string): Promise<string> {
  const built = process.env[builtVariable];
  if (built !== undefined) return join(built, 'lib');
  const outdir = join(directory, 'lib');
  mkdirSync(outdir);
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  await bundle({ root, entries: findEntries(join(root, 'src')), outdir, version, debug: false });
  // So Node does not have to guess that these are ES modules.
  writeFileSync(join(outdir, 'package.json'), '{ "type": "module" }\n');
  return outdir;
}
