/** Walks through the files of a vault in a directory. Files that vanish in the meantime are skipped. */
import type { Dirent, Stats } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../../base/errors.ts';
import { type StoredObject, isKey } from './object-store.ts';

interface Entry {
  /** Path relative to the root. */
  readonly name: string;
  /** Undefined: neither a file nor a folder. Links have the kind of their target. */
  readonly kind: 'file' | 'folder' | undefined;
}

/** Number of files that are checked in parallel; on NFS each check may be a round trip. */
const LOOKS = 16;
/** Maximum number of segments of a key. */
const DEPTH = 4;

interface Walk {
  /** Beginning of the keys. */
  readonly prefix: string;
  /** Only keys after this one. */
  readonly after: string;
  readonly signal: AbortSignal | undefined;
}

/** Yields objects in the order of their keys. */
export async function* listObjects(root: string, walk: Walk): AsyncGenerator<StoredObject> {
  yield* listFolder(root, walk.prefix.slice(0, Math.max(0, walk.prefix.lastIndexOf('/'))), walk);
}

async function* listFolder(root: string, folder: string, walk: Walk): AsyncGenerator<StoredObject> {
  const entries = (await entriesOf(root, folder, walk.signal))
    .filter((entry) => isKey(entry.name) && mayLead(entry, walk))
    .sort((a, b) => (sortKey(a) < sortKey(b) ? -1 : 1));
  for (let at = 0; at < entries.length; at += LOOKS) {
    walk.signal?.throwIfAborted();
    const some = entries.slice(at, at + LOOKS).map(async ({ name, kind }) => ({
      name,
      kind,
      found: kind === 'file' ? await look(root, name) : undefined,
    }));
    for (const { name, kind, found } of await Promise.all(some)) {
      if (kind === 'folder') yield* listFolder(root, name, walk);
      else if (found !== undefined) yield { key: name, size: found.size, modified: found.mtimeMs };
    }
  }
}

/** Returns whether the entry, or a file in it, may be listed. */
function mayLead({ name, kind }: Entry, { prefix, after }: Walk): boolean {
  if (kind === 'file') return name.startsWith(prefix) && name > after;
  const within = `${name}/`;
  const below = within.startsWith(prefix) || prefix.startsWith(within);
  return kind === 'folder' && below && (within > after || after.startsWith(within));
}

/** The content of a folder is sorted at the folder's slash. */
function sortKey({ name, kind }: Entry): string {
  return kind === 'folder' ? `${name}/` : name;
}

/** Yields names that are not keys. A foreign folder has a slash at its end, and its content is not listed. */
export async function* foreignNames(root: string, signal?: AbortSignal, folder = ''): AsyncGenerator<string> {
  for (const { name, kind } of await entriesOf(root, folder, signal)) {
    const last = name.slice(name.lastIndexOf('/') + 1);
    // NFS keeps deleted files that are open as `.nfs…`, and every ext filesystem has lost+found.
    if (last.startsWith('.nfs') || name === 'lost+found' || name === 'tmp') continue;
    const deep = name.split('/').length >= DEPTH;
    if (isKey(name) && kind === 'folder' && !deep) yield* foreignNames(root, signal, name);
    else if (!isKey(name) || kind !== 'file') yield kind === 'folder' ? `${name}/` : name;
  }
}

/** Yields the files in `folder`, which is `tmp/`. */
export async function* listTemporary(
  folder: string,
  signal?: AbortSignal,
): AsyncGenerator<{ name: string; size: number; modified: number }> {
  for (const { name, kind } of await entriesOf(folder, '', signal)) {
    const found = kind === 'file' ? await look(folder, name) : undefined;
    if (found !== undefined) yield { name, size: found.size, modified: found.mtimeMs };
  }
}

async function entriesOf(root: string, folder: string, signal: AbortSignal | undefined): Promise<Entry[]> {
  signal?.throwIfAborted();
  const entries = await readdir(join(root, folder), { withFileTypes: true }).catch(
    nothingThere<Dirent[]>([]),
  );
  return Promise.all(
    entries.map(async (entry) => {
      const name = folder === '' ? entry.name : `${folder}/${entry.name}`;
      return { name, kind: kindOf(entry) ?? kindOf(await unknown(root, name, entry)) };
    }),
  );
}

/** Links, and entries of filesystems without types in their directories, are checked. */
async function unknown(root: string, name: string, entry: Dirent): Promise<Stats | undefined> {
  const certain = entry.isSocket() || entry.isFIFO() || entry.isBlockDevice() || entry.isCharacterDevice();
  return certain ? undefined : look(root, name);
}

function kindOf(entry: Dirent | Stats | undefined): Entry['kind'] {
  if (entry?.isFile() === true) return 'file';
  return entry?.isDirectory() === true ? 'folder' : undefined;
}

function look(root: string, name: string): Promise<Stats | undefined> {
  return stat(join(root, name)).catch(nothingThere<Stats | undefined>(undefined));
}

function nothingThere<T>(instead: T): (thrown: unknown) => T {
  return (thrown) => {
    const code = errnoCode(thrown);
    // ELOOP: a link to itself.
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP') return instead;
    throw thrown;
  };
}
