/**
 * Keeps the owner of a vault in a directory. Files that root writes in a directory of another user are given to that
 * user, who could not read or prune the vault otherwise. Folders there must not be links: the user could make root
 * create, give away or remove files in other places. The user can create a link at any moment, so a check before use
 * is not sufficient. Root works below folders that it holds open.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { HeldDirectory } from '../../base/held-directory.ts';

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Returns the owner for new files; undefined: the process that writes. */
export function ownerOf(directory: Stats, uid = process.getuid?.()): Owner | undefined {
  return uid === 0 && directory.uid !== 0 ? { uid: directory.uid, gid: directory.gid } : undefined;
}

/**
 * Runs `work` with a path that leads only to this folder, even if the owner renames or links it in the meantime. The
 * folder is relative to the root; '' is the root itself. The path is valid until `work` settles. Throws VAULT_DENIED
 * if a part of the folder is a link or not a folder, or if the root has another owner now; ENOENT if the folder is
 * missing.
 */
export async function withHeldFolder<T>(
  root: string,
  folder: string,
  owner: Owner,
  work: (path: string) => Promise<T>,
): Promise<T> {
  // The root itself may be a link. The owner may have created it, so it must still lead to a directory of the owner.
  let at = await HeldDirectory.open(`${root}/.`, root);
  try {
    const { uid } = await at.handle.stat();
    if (uid !== owner.uid)
      throw new AgentError(
        'VAULT_DENIED',
        `${root} now belongs to user ${uid}, and belonged to user ${owner.uid} before`,
        {
          hint: 'check whether another directory or filesystem took its place, then try again',
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
    { hint: 'root follows no links there; give the directory to root, or run dattocli as its owner', cause },
  );
}

/**
 * Errors of chown(2) if the owner cannot be set: no CAP_CHOWN, root_squash, an unmapped ID, or a filesystem without
 * owners.
 */
const notGivable: ReadonlySet<string | undefined> = new Set([
  'EPERM',
  'EINVAL',
  'ENOSYS',
  'ENOTSUP',
  'EOPNOTSUPP',
]);

/** Gives the open file or folder to its owner. If this is not possible, it stays with the process that created it. */
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
