/**
 * Whose the files of a vault in a directory are. What root writes into a directory of another user belongs to that user,
 * who could neither read nor prune it otherwise. Folders there may not be links then: the user could make root give
 * files away that lie elsewhere.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, open } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError, errnoCode } from '../../base/errors.ts';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** The owner to whom new files are given; undefined: the process that writes. */
export function ownerOf(directory: Stats, uid = process.getuid?.()): Owner | undefined {
  return uid === 0 && directory.uid !== 0 ? { uid: directory.uid, gid: directory.gid } : undefined;
}

/** Throws VAULT_DENIED where a part of the folder (below the root) is a link or no folder. One that is missing is fine. */
export async function refuseLinks(root: string, folder: string): Promise<void> {
  let path = root;
  for (const part of folder.split('/')) {
    path = join(path, part);
    const found = await lstat(path).catch((error: unknown) => {
      if (errnoCode(error) !== 'ENOENT') throw error;
      return undefined;
    });
    if (found === undefined) return;
    if (!found.isDirectory())
      throw new AgentError(
        'VAULT_DENIED',
        `${path} is no folder, in a directory that belongs to another user`,
        {
          hint: 'root follows no links there: give the directory to root, or run as its owner',
        },
      );
  }
}

/** Errors of chown(2) for an owner that cannot be given: no CAP_CHOWN, root_squash, an unmapped id, no owners at all. */
const notGivable: ReadonlySet<string | undefined> = new Set([
  'EPERM',
  'EINVAL',
  'ENOSYS',
  'ENOTSUP',
  'EOPNOTSUPP',
]);

/** Gives the open file or folder to its owner. If that is not possible, it stays with the process that made it. */
export async function give(handle: Pick<FileHandle, 'chown'>, { uid, gid }: Owner): Promise<void> {
  try {
    await handle.chown(uid, gid);
  } catch (thrown) {
    if (!notGivable.has(errnoCode(thrown))) throw thrown;
  }
}

export async function giveFolder(path: string, owner: Owner): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    await give(folder, owner);
  } finally {
    await folder.close();
  }
}
