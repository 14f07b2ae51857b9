/**
 * Whose the files of a vault in a directory are. What root writes into a directory of another user belongs to that user,
 * who could neither read nor prune it otherwise. Folders there may not be links then: the user could make root make,
 * give away or remove files that lie elsewhere. The user can put a link there at any moment, so a check before the use
 * would not do: root works below folders that it holds open.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { HeldDirectory } from '../../base/held-directory.ts';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** The owner to whom new files are given; undefined: the process that writes. */
export function ownerOf(directory: Stats, uid = process.getuid?.()): Owner | undefined {
  return uid === 0 && directory.uid !== 0 ? { uid: directory.uid, gid: directory.gid } : undefined;
}

/**
 * Runs `work` with a path of the folder (below the root, '' the root itself) that leads to this folder only, whatever the
 * owner renames or links in the meantime. The path is valid until `work` settles. Throws VAULT_DENIED if a part of the
 * folder is a link or not a folder, and if the root does not belong to the owner any more; ENOENT if the folder is missing.
 */
export async function withHeldFolder<T>(
  root: string,
  folder: string,
  owner: Owner,
  work: (path: string) => Promise<T>,
): Promise<T> {
  // The root itself may be a link; the owner may have made it, so it must still lead to a directory of the owner.
  let at = await HeldDirectory.open(`${root}/.`, root);
  try {
    const { uid } = await at.handle.stat();
    if (uid !== owner.uid)
      throw new AgentError(
        'VAULT_DENIED',
        `${root} belongs to user ${uid} now, and belonged to user ${owner.uid}`,
        {
          hint: 'see whether another directory or filesystem took its place, then try again',
        },
      );
    for (const part of folder.split('/')) {
      if (part === '') continue;
      const next = await at.child(part).catch((thrown: unknown) => {
        throw ['ELOOP', 'ENOTDIR'].includes(errnoCode(thrown) ?? '')
          ? notAFolder(at.name, part, thrown)
          : thrown;
      });
      await at.close();
      at = next;
    }
    return await work(at.path);
  } finally {
    await at.close();
  }
}

function notAFolder(parent: string, name: string, cause: unknown): AgentError {
  return new AgentError(
    'VAULT_DENIED',
    `${parent}/${name} is not a folder, in a directory that belongs to another user`,
    { hint: 'root follows no links there: give the directory to root, or run as its owner', cause },
  );
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
