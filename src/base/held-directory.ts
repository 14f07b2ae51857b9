/**
 * Directories that are held open. Node has no openat(2), so paths below such a directory go through `/proc/PID/fd`. If
 * another process renames or replaces a directory on the way, these paths still lead to the directory that was opened.
 * Nothing here follows a symbolic link that an unprivileged user could have made.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir, readlink } from 'node:fs/promises';
import { AgentError, errnoCode } from './errors.ts';

/** Most symbolic links that are followed, as in the kernel (MAXSYMLINKS). */
const mostLinks = 40;

/** A name. Names that come from a filesystem are bytes, because they need not be UTF-8. */
export type Entry = string | Buffer;

export class HeldDirectory {
  /** For messages. */
  readonly name: string;
  readonly handle: FileHandle;

  private constructor(name: string, handle: FileHandle) {
    this.name = name;
    this.handle = handle;
  }

  static async open(path: Entry, name = path.toString()): Promise<HeldDirectory> {
    const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
    return new HeldDirectory(name, await open(path, flags));
  }

  /** A path to this directory, valid while it is held open, also for programs that this process runs. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.handle.fd}`;
  }

  at(entry: Entry): Entry {
    return typeof entry === 'string'
      ? `${this.path}/${entry}`
      : Buffer.concat([Buffer.from(`${this.path}/`), entry]);
  }

  /** Returns the names in this directory. */
  entries(): Promise<Buffer[]> {
    return readdir(this.path, 'buffer');
  }

  /** For messages. */
  nameOf(entry: Entry): string {
    return `${this.name === '/' ? '' : this.name}/${entry.toString()}`;
  }

  /** Opens a directory in this one. Throws ENOENT, or ENOTDIR or ELOOP if the entry is not a directory (any more). */
  child(entry: Entry): Promise<HeldDirectory> {
    return HeldDirectory.open(this.at(entry), this.nameOf(entry));
  }

  lstat(entry: Entry): Promise<Stats | undefined> {
    return lstat(this.at(entry)).catch((error: unknown) => {
      if (errnoCode(error) === 'ENOENT') return undefined;
      throw error;
    });
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/**
 * Opens an absolute path, directory by directory from the root, and makes missing directories. A symbolic link on the
 * way is followed if only root or the user of this process can have made it. Throws FILE_ERROR.
 */
export async function holdDirectory(path: string): Promise<HeldDirectory> {
  let left = path.split('/');
  let at = await HeldDirectory.open('/');
  let links = 0;
  try {
    while (left.length > 0) {
      const [entry = '', ...rest] = left;
      left = rest;
      if (entry === '' || entry === '.') continue;
      const node = await at.lstat(entry);
      let next: HeldDirectory;
      if (node?.isSymbolicLink() === true) {
        await refuseForeignLink(at, entry, node);
        if (++links > mostLinks) throw failed(path, 'ELOOP');
        const target = await readlink(at.at(entry));
        left = [...target.split('/'), ...rest];
        if (!target.startsWith('/')) continue;
        next = await HeldDirectory.open('/');
      } else {
        if (node === undefined) await mkdir(at.at(entry)).catch(unlessThere);
        next = await at.child(entry);
      }
      await at.close();
      at = next;
    }
    return at;
  } catch (error) {
    await at.close();
    if (error instanceof AgentError) throw error;
    throw failed(path, errnoCode(error) ?? String(error), error);
  }
}

function failed(path: string, code: string, cause?: unknown): AgentError {
  const why = code === 'ENOTDIR' || code === 'ELOOP' ? `it is not a directory (${code})` : code;
  return new AgentError('FILE_ERROR', `${path} cannot be used as a directory: ${why}`, {
    hint: 'Name a directory, or one that can be made',
    cause,
  });
}

function unlessThere(error: unknown): void {
  if (errnoCode(error) !== 'EEXIST') throw error;
}

/** Throws unless the link belongs to root or this process's user, and no other user can have moved it there. */
async function refuseForeignLink(parent: HeldDirectory, entry: string, link: Stats): Promise<void> {
  const { uid, mode } = await parent.handle.stat();
  const ours = [0, process.geteuid?.() ?? 0];
  const sticky = (mode & 0o1000) !== 0;
  if (ours.includes(link.uid) && ours.includes(uid) && ((mode & 0o022) === 0 || sticky)) return;
  throw new AgentError(
    'FILE_ERROR',
    `${parent.nameOf(entry)} is a symbolic link that a user other than root could have made (owner ${link.uid}), and is not followed`,
    { hint: 'Give the path that it leads to, if that is what you mean' },
  );
}
