/**
 * How tests start our programs: from `build/`, as ./run_tests does (what ships is tested, and it starts in a third of the
 * time), or from the sources, as a test file that is run by hand does, so that a change needs no build before its test.
 */
import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nodeFlags } from '../../src/base/entry.ts';

/** Set to the folder that holds the built programs; ./run_tests sets it. Not set: the sources. */
export const builtVariable = 'AGENT_TEST_BUILD';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * The command that starts `entry`, a file relative to this repository. `src/bin/dattod.ts` may become `build/dattod`; other
 * sources stay what they are, and so does a built program.
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
