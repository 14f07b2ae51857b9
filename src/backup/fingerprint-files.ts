/** The files of fingerprints that live as long as their job, in the state directory. */
import { rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createFingerprintFile } from './copy/fingerprints.ts';

const folder = 'fingerprints';

/** Makes the file for one device of a job; whoever ends the job removes it. */
export async function makeFingerprints(
  stateDirectory: string,
  name: string,
  deviceSize: number,
): Promise<string> {
  const directory = join(stateDirectory, folder);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, name);
  createFingerprintFile(path, deviceSize);
  return path;
}

/** Removes what jobs of a daemon that was killed have left. Call it while no job runs. */
export function discardLeftFingerprints(stateDirectory: string): void {
  rmSync(join(stateDirectory, folder), { recursive: true, force: true });
}
