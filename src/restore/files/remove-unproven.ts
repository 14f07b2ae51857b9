/**
 * Removes incomplete files after a copy that reported an error (ENOSPC, EIO, a quota). cp does not report which files are
 * truncated or empty. So each file is compared with its original, and removed if it differs.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, open, readlink, rm } from 'node:fs/promises';
import { MiB } from '../../base/bytes.ts';
import type { Entry, HeldDirectory } from '../../base/held-directory.ts';

/**
 * Removes all files of `copy` whose type or content differs from `original`, or whose original cannot be read. Directories
 * stay. Returns the number of removed entries.
 */
export async function removeUnproven(
  original: HeldDirectory,
  copy: HeldDirectory,
  signal?: AbortSignal,
): Promise<number> {
  let removed = 0;
  for (const entry of await copy.entries()) {
    signal?.throwIfAborted();
    const [before, after] = await Promise.all([
      original.lstat(entry).catch(() => undefined),
      copy.lstat(entry),
    ]);
    if (before?.isDirectory() === true && after?.isDirectory() === true) {
      removed += await removeBelow(original, copy, entry, signal);
    } else if (
      before === undefined ||
      after === undefined ||
      !(await isSame(original.at(entry), before, copy.at(entry), after))
    ) {
      await rm(copy.at(entry), { recursive: true, force: true });
      removed++;
    }
  }
  return removed;
}

async function removeBelow(
  original: HeldDirectory,
  copy: HeldDirectory,
  entry: Entry,
  signal?: AbortSignal,
): Promise<number> {
  const inside = await original.child(entry);
  try {
    const insideCopy = await copy.child(entry);
    try {
      return await removeUnproven(inside, insideCopy, signal);
    } finally {
      await insideCopy.close();
    }
  } finally {
    await inside.close();
  }
}

async function isSame(original: Entry, before: Stats, copy: Entry, after: Stats): Promise<boolean> {
  if ((before.mode & constants.S_IFMT) !== (after.mode & constants.S_IFMT)) return false;
  if (before.isFile()) return before.size === after.size && (await hasSameContent(original, copy));
  if (before.isSymbolicLink()) {
    const [from, to] = await Promise.all([readlink(original, 'buffer'), readlink(copy, 'buffer')]);
    return from.equals(to);
  }
  return before.rdev === after.rdev;
}

/** Returns false also if one of the files cannot be read. */
async function hasSameContent(original: Entry, copy: Entry): Promise<boolean> {
  const files: FileHandle[] = [];
  try {
    for (const path of [original, copy])
      files.push(await open(path, constants.O_RDONLY | constants.O_NOFOLLOW));
    const [from, to] = [Buffer.alloc(MiB), Buffer.alloc(MiB)];
    for (let position = 0; ;) {
      const length = await readFully(files[0]!, from, position);
      if (length !== (await readFully(files[1]!, to, position))) return false;
      if (!from.subarray(0, length).equals(to.subarray(0, length))) return false;
      if (length < from.length) return true;
      position += length;
    }
  } catch {
    return false;
  } finally {
    for (const file of files) await file.close();
  }
}

/** Returns the number of bytes read, which is less than the buffer's length only at the end of the file. */
async function readFully(file: FileHandle, buffer: Buffer, position: number): Promise<number> {
  let done = 0;
  while (done < buffer.length) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}
