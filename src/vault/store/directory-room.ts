/**
 * The reserve of a vault in a directory: a file of random bytes, which no filesystem makes smaller, under `tmp/`. Nothing
 * rests on it; whatever removes it makes room early.
 */
import { open, rename, stat, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../../base/bytes.ts';
import { errnoCode } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import type { Room } from './object-store.ts';
import { writeParts } from './durable.ts';

/** The file's name in `tmp/`. */
export const reserveName = 'reserve';
/** At most this share of what is free. */
const share = 1 / 8;

export function directoryRoom(root: string): Room {
  const path = join(root, 'tmp', reserveName);
  return {
    keep: async (bytes) => {
      if ((await stat(path).catch(absentAsUndefined)) !== undefined) return;
      const { bavail, bsize } = await statfs(root);
      if (bytes > bavail * bsize * share) return;
      const making = `${path}-${freshBytes(8).toString('hex')}`;
      const handle = await open(making, 'wx', 0o600).catch(absentAsUndefined);
      try {
        if (handle === undefined) return;
        const block = freshBytes(MiB);
        const parts = Array.from({ length: Math.ceil(bytes / MiB) }, () => block);
        await writeParts(handle, parts);
        await handle.sync();
        await rename(making, path);
      } catch (thrown) {
        await unlink(making).catch(() => undefined);
        throw thrown;
      } finally {
        await handle?.close();
      }
    },
    release: async () => {
      try {
        await unlink(path);
        return true;
      } catch (thrown) {
        absentAsUndefined(thrown);
        return false;
      }
    },
  };
}

function absentAsUndefined(thrown: unknown): undefined {
  if (errnoCode(thrown) !== 'ENOENT') throw thrown;
  return undefined;
}
