/**
 * Proves that a directory that this process has just made, and opened by its name, is still its own, and that no other user
 * can change what is in it. mkdir(2) gives no descriptor, so the owner of the place could have put another directory there
 * before it was opened. On most filesystems the owner and the mode tell. Some show others than were asked for: FAT, NTFS
 * and CIFS give all files one owner and one mode, and NFS with root_squash gives to `nobody` what root makes.
 */
import { constants, type Stats } from 'node:fs';
import { open, symlink, unlink } from 'node:fs/promises';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import type { HeldDirectory } from '../../base/held-directory.ts';

/** Of files that belong to no user of the kernel's user namespace, and of NFS for root (`nobody`). */
const overflowUid = 65534;

type Owned = Pick<Stats, 'uid' | 'mode'>;

/** `directory` was made in `place` with mode 0700. Throws FILE_ERROR, and errno's errors. */
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

/** `file`: what the filesystem shows of a file that was made with mode 0600 in the same place, by this process. */
export function isAsMade(directory: Owned, file: Owned): boolean {
  const keepsModes = (file.mode & 0o777) === 0o600;
  return directory.uid === file.uid && (!keepsModes || isPrivate(directory));
}

/** Not counting `nobody`, if only `nobody` may write: that is root itself on NFS. */
export function othersMayWrite(directory: Owned, root: number): boolean {
  return (directory.mode & 0o022) !== 0 || (directory.uid !== root && directory.uid !== overflowUid);
}

function isPrivate({ mode }: Owned): boolean {
  return (mode & 0o777) === 0o700;
}

/** The descriptor is that of the new file, whatever happens to its name. */
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

/** Without symbolic links, a user who changes the tree cannot lead the copy elsewhere. */
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
    `The filesystem of ${directory.name} gives all files the owner ${uid} and the mode ${(mode & 0o777).toString(8)}, and keeps symbolic links: a user other than root could lead the restored files elsewhere`,
    {
      hint: 'Mount it so that only root may write (for example with uid=0,umask=022), or restore to another filesystem',
    },
  );
}
