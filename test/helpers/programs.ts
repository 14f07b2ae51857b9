/**
 * Decides how tests start our programs. With ./run_tests they start from `build/`, so that the shipped
 * program is tested; it also starts in a third of the time. A test file that is run by hand uses the sources,
 * so that a change needs no build before its test.
 */
import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nodeFlags } from '../../src/base/entry.ts';

/** Names the folder of the built programs; ./run_tests sets it. Not set: the sources. */
export const builtVariable = 'AGENT_TEST_BUILD';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Returns the command that starts `entry`, a file relative to this repository. `src/bin/dattod.ts` may become
 * `build/dattod`. Other sources and built programs are started as they are.
 */
export function programCommand(entry: string): [program: string, ...args: string[]] {
  const folder = process.env[builtVariable];
  if (folder !== undefined && /^src\/bin\/[^/]+\.ts$/.test(entry)) {
    const launcher = join(folder, basename(entry, '.ts'));
    if (!existsSync(launcher)) throw new Error(`${launcher} is missing: run ./one_step_build`);
    return [launcher];
  }
  const path = resolve(root, entry);
  return /\.[jt]s$/.test(path) ? [process.execPath, ...nodeFlags, path] : [path];
}
