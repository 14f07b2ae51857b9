/**
 * Proves that a directory that this process has just made and opened by name is really its own, and that no other user can
 * change its contents. mkdir(2) returns no descriptor, so the owner of the place could have put another directory there
 * before it was opened. On most filesystems the owner and the mode prove it. Some filesystems show other values: FAT, NTFS
 * and CIFS give all files one owner and one mode, and NFS with root_squash gives files of root to `nobody`.
 */
import { constants, type Stats } from 'node:fs';
import { open, symlink, unlink } from 'node:fs/promises';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import type { HeldDirectory } from '../../base/held-directory.ts';

/** The UID of files without a user in the user namespace, and of root on NFS (`nobody`). */
const overflowUid = 65534;

type Owned = Pick<Stats, 'uid' | 'mode'>;

/** Checks `directory`, which was made in `place` with mode 0700. Throws FILE_ERROR, and system errors. */
export async function provePrivate(place: HeldDirectory, directory: HeldDirectory): Promise<void> {
  const shown = await directory.handle.stat();
  const root = process.geteuid?.() ?? 0;
  let isOurs = isPrivate(shown) && shown.uid === root;
  if (!isOurs) {
    const file = await ownerAndModeOfNewFile(place);
    isOurs = isAsMade(shown, file);
    if (isOurs && othersMayWrite(shown, root) && (await keepsLinks(directory)))
      throw refused(directory, shown);
  }
  if (!isOurs || (await directory.entries()).length > 0)
    throw new AgentError(
      'FILE_ERROR',
      `${directory.name} was replaced by another process while files were restored`,
      { hint: 'Run the command again' },
    );
}

/**
 * Whether owner and mode of the directory fit a directory of this process. `file` has owner and mode of a file that this
 * process made in the same place with mode 0600.
 */
export function isAsMade(directory: Owned, file: Owned): boolean {
  const keepsModes = (file.mode & 0o777) === 0o600;
  return directory.uid === file.uid && (!keepsModes || isPrivate(directory));
}

/** Whether a user other than root may write. The owner `nobody` counts as root: on NFS it is root. */
export function othersMayWrite(directory: Owned, root: number): boolean {
  return (directory.mode & 0o022) !== 0 || (directory.uid !== root && directory.uid !== overflowUid);
}

function isPrivate({ mode }: Owned): boolean {
  return (mode & 0o777) === 0o700;
}

/** Reads them through the descriptor, so that a replaced name has no effect. */
async function ownerAndModeOfNewFile(place: HeldDirectory): Promise<Owned> {
  const entry = `.dattod-restore-${freshBytes(8).toString('hex')}`;
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const file = await open(place.at(entry), flags, 0o600);
  try {
    return await file.stat();
  } finally {
    await file.close();
    await unlink(place.at(entry)).catch(() => undefined);
  }
}

/** Whether the filesystem has symbolic links. Without them, another user cannot lead the copy to another place. */
async function keepsLinks(directory: HeldDirectory): Promise<boolean> {
  const path = directory.at('link');
  try {
    await symlink('nowhere', path);
  } catch (error) {
    if (['EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS'].includes(errnoCode(error) ?? '')) return false;
    throw error;
  }
  await unlink(path).catch(() => undefined);
  return true;
}

function refused(directory: HeldDirectory, { uid, mode }: Owned): AgentError {
  return new AgentError(
    'FILE_ERROR',
    `The filesystem of ${directory.name} gives all files the owner ${uid} and the mode ${(mode & 0o777).toString(8)}, and supports symbolic links. So a user other than root could redirect the restored files`,
    {
      hint: 'Mount it so that only root may write (for example with uid=0,umask=022), or restore to another filesystem',
    },
  );
}
