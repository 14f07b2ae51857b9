/**
 * Folders and files that survive a power failure: a created or removed name is durable after its folder was synced.
 * This also works on NFS, where the client sends such changes at once.
 */
import { type FileHandle, link, lstat, mkdir, rename, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { syncDirectory } from '../../base/durable.ts';
import { errnoCode } from '../../base/errors.ts';

/** Syncs a folder. Errors of filesystems that cannot do this (such as CIFS) are ignored. */
export async function syncFolder(path: string): Promise<void> {
  try {
    await syncDirectory(path);
  } catch (thrown) {
    if (!['EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'EBADF'].includes(errnoCode(thrown) ?? '')) throw thrown;
  }
}

/** Creates a directory and its missing parents durably. */
export async function makeDirectories(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (thrown) {
    if (errnoCode(thrown) === 'EEXIST') return;
    if (errnoCode(thrown) !== 'ENOENT' || dirname(path) === path) throw thrown;
    await makeDirectories(dirname(path), mode);
    await makeDirectories(path, mode);
    return;
  }
  await syncFolder(dirname(path));
}

/** Syncs folders for many callers. Callers that come during a sync share the next one. */
export class FolderSync {
  readonly #running = new Map<string, Promise<void>>();
  readonly #next = new Map<string, Promise<void>>();

  /** Resolves when a sync that began after this call is done. */
  sync(folder: string): Promise<void> {
    const waiting = this.#next.get(folder);
    if (waiting !== undefined) return waiting;
    const running = this.#running.get(folder);
    if (running === undefined) return this.#start(folder);
    const next = running
      .catch(() => undefined)
      .then(() => {
        this.#next.delete(folder);
        return this.#start(folder);
      });
    this.#next.set(folder, next);
    return next;
  }

  #start(folder: string): Promise<void> {
    const run = syncFolder(folder).finally(() => {
      if (this.#running.get(folder) === run) this.#running.delete(folder);
    });
    this.#running.set(folder, run);
    return run;
  }
}

/** Errors of link(2) on filesystems without hard links (FAT, some FUSE and CIFS), or if there are too many links. */
const noLinks: ReadonlySet<string | undefined> = new Set([
  'EPERM',
  'ENOTSUP',
  'EOPNOTSUPP',
  'ENOSYS',
  'EMLINK',
]);

/**
 * Renames a file to a name that is free. Returns false if it is taken; then both files stay. On filesystems without
 * hard links, two simultaneous calls may replace one another.
 */
export async function renameToNew(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
  } catch (thrown) {
    const code = errnoCode(thrown);
    if (noLinks.has(code)) {
      if (await isThere(to)) return false;
      await rename(from, to);
      return true;
    }
    if (code !== 'EEXIST') throw thrown;
    // An NFS server that answers a repeated request may report our own link.
    if (!(await isSameFile(from, to))) return false;
  }
  await unlink(from);
  return true;
}

async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    (thrown: unknown) => {
      if (errnoCode(thrown) !== 'ENOENT') throw thrown;
      return false;
    },
  );
}

async function isSameFile(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([lstat(a), lstat(b)]);
  return one.dev === other.dev && one.ino === other.ino;
}

/** Runs `work` with a path of the folder. The folder is relative to the root; '' is the root itself. */
export type WithinFolder = <T>(folder: string, work: (path: string) => Promise<T>) => Promise<T>;

/** Creates the folders of keys under a root, each durable before it is used. It remembers durable folders. */
export class DurableFolders {
  readonly #within: WithinFolder;
  readonly #mode: number;
  readonly #made: (path: string) => Promise<void>;
  readonly #durable = new Set<string>();

  /** `made` is called for each folder that was created here. */
  constructor(within: WithinFolder, mode: number, made: (path: string) => Promise<void>) {
    this.#within = within;
    this.#mode = mode;
    this.#made = made;
  }

  /**
   * `folder` is relative to the root; '' is the root itself. If the folder exists, its parent is still synced once,
   * because another process may have created it without syncing yet.
   */
  async make(folder: string): Promise<void> {
    if (folder === '' || this.#durable.has(folder)) return;
    const slash = folder.lastIndexOf('/');
    const parent = slash < 0 ? '' : folder.slice(0, slash);
    await this.make(parent);
    await this.#within(parent, async (at) => {
      const path = join(at, folder.slice(slash + 1));
      try {
        await mkdir(path, { mode: this.#mode });
        await this.#made(path);
      } catch (thrown) {
        if (errnoCode(thrown) !== 'EEXIST') throw thrown;
      }
      await syncFolder(at);
    });
    this.#durable.add(folder);
  }

  /** Call it if a folder turned out to be missing. */
  forget(): void {
    this.#durable.clear();
  }
}

/** Maximum number of buffers per writev (Linux takes 1024). */
const MOST_PARTS = 512;

/** Writes all parts, with as many calls as necessary. */
export async function writeParts(
  handle: FileHandle,
  parts: readonly Uint8Array[],
  signal?: AbortSignal,
): Promise<void> {
  let pending = parts.filter((part) => part.length > 0);
  while (pending.length > 0) {
    signal?.throwIfAborted();
    let written = (await handle.writev(pending.slice(0, MOST_PARTS))).bytesWritten;
    let done = 0;
    while (done < pending.length && written >= pending[done]!.length) written -= pending[done++]!.length;
    pending = pending.slice(done);
    if (written > 0) pending[0] = pending[0]!.subarray(written);
  }
}

/** Returns up to `length` bytes at `offset` in new memory; fewer at the end of the file. */
export async function readRange(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
  // Not from Buffer's pool, because a caller may transfer the memory to another thread.
  const buffer = Buffer.allocUnsafeSlow(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(buffer, done, length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done === length ? buffer : buffer.subarray(0, done);
}
