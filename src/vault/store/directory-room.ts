/**
 * The reserved space of a vault in a directory: a file of random bytes under `tmp/`, which no filesystem can
 * compress. Correctness does not depend on it. Removing it frees the space early.
 */
import { open, rename, stat, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../../base/bytes.ts';
import { errnoCode } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import type { Room } from './object-store.ts';
import { type WithinFolder, writeParts } from './durable.ts';

/** The file's name in `tmp/`. */
export const reserveName = 'reserve';
/** Maximum share of the free space. */
const share = 1 / 8;

export function directoryRoom(within: WithinFolder): Room {
  return {
    keep: async (bytes) => {
      await within('tmp', (folder) => keep(folder, bytes)).catch(absentAsUndefined);
    },
    release: async () => {
      try {
        await within('tmp', (folder) => unlink(join(folder, reserveName)));
        return true;
      } catch (thrown) {
        absentAsUndefined(thrown);
        return false;
      }
    },
  };
}

/** Throws ENOENT if the folder is missing. */
async function keep(folder: string, bytes: number): Promise<void> {
  const path = join(folder, reserveName);
  if ((await stat(path).catch(absentAsUndefined)) !== undefined) return;
  const { bavail, bsize } = await statfs(folder);
  if (bytes > bavail * bsize * share) return;
  const making = `${path}-${freshBytes(8).toString('hex')}`;
  const handle = await open(making, 'wx', 0o600);
  try {
    const block = freshBytes(MiB);
    const parts = Array.from({ length: Math.ceil(bytes / MiB) }, () => block);
    await writeParts(handle, parts);
    await handle.sync();
    await rename(making, path);
  } catch (thrown) {
    await unlink(making).catch(() => undefined);
    throw thrown;
  } finally {
    await handle.close();
  }
}

function absentAsUndefined(thrown: unknown): undefined {
  if (errnoCode(thrown) !== 'ENOENT') throw thrown;
  return undefined;
}
