/**
 * Moves a tree from a staging directory into its place. The staging directory is beside the place, on the same filesystem,
 * and only root can enter it. So each file appears in the destination complete, with owners, setuid bits, capabilities and
 * ACLs, by one rename. A directory that does not exist there yet is renamed as a whole. No symbolic link of the destination
 * is followed, even if another process changes the destination in the meantime.
 */
import type { Stats } from 'node:fs';
import { mkdir, rename, rm, rmdir } from 'node:fs/promises';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import { type Attributes, readAttributes, writeAttributes } from '../../linux/attributes.ts';
import type { Entry, HeldDirectory } from '../../base/held-directory.ts';
import { provePrivate } from './private-directory.ts';

export interface PlaceOptions {
  /** Existing files are replaced. */
  readonly overwrite: boolean;
  /** Copies the contents of one directory into another, with all metadata. Leaves no incomplete file there. */
  readonly copy: (from: HeldDirectory, to: HeldDirectory) => Promise<void>;
  /**
   * True after a copy reported an error. The metadata of staged directories may then be wrong, so existing directories
   * keep their own metadata. Default: always false.
   */
  readonly copyFailed?: () => boolean;
  readonly signal?: AbortSignal | undefined;
}

export class Staging {
  /** The directory to copy into. Only root can enter the directory around it. */
  readonly tree: HeldDirectory;
  readonly #outer: HeldDirectory;
  readonly #place: HeldDirectory;
  readonly #entry: string;

  private constructor(place: HeldDirectory, entry: string, outer: HeldDirectory, tree: HeldDirectory) {
    this.#place = place;
    this.#entry = entry;
    this.#outer = outer;
    this.tree = tree;
  }

  /** Throws FILE_ERROR if another process interferes, and system errors. */
  static async make(place: HeldDirectory): Promise<Staging> {
    const entry = `.dattod-restore-${freshBytes(8).toString('hex')}`;
    await mkdir(place.at(entry), { mode: 0o700 });
    try {
      const outer = await place.child(entry);
      try {
        await provePrivate(place, outer);
        await mkdir(outer.at('tree'), { mode: 0o700 });
        return new Staging(place, entry, outer, await outer.child('tree'));
      } catch (error) {
        await outer.close();
        throw error;
      }
    } catch (error) {
      await rmdir(place.at(entry)).catch(() => undefined);
      throw error;
    }
  }

  async remove(): Promise<void> {
    await this.tree.close();
    await rm(this.#outer.at('tree'), { recursive: true, force: true });
    await this.#outer.close();
    // If another process moved the directory away, this name belongs to that process. Then it is not empty or not ours.
    await rmdir(this.#place.at(this.#entry)).catch(() => undefined);
  }
}

/**
 * Moves the entries of `from` into `to`. Existing directories are merged and get the metadata of the tree. Throws
 * FILE_ERROR, and FILE_EXISTS before any change if an existing entry must not be replaced.
 */
export async function placeFiles(
  from: HeldDirectory,
  to: HeldDirectory,
  options: PlaceOptions,
): Promise<void> {
  const inTheWay: string[] = [];
  await walk(from, to, { ...options, inTheWay });
  if (inTheWay.length > 0) {
    const more = inTheWay.length > 3 ? ` and ${inTheWay.length - 3} more` : '';
    throw new AgentError('FILE_EXISTS', `${inTheWay.slice(0, 3).join('; ')}${more}`, {
      hint: 'Nothing was changed. Remove these entries, or restore to another directory',
    });
  }
  await walk(from, to, options);
}

/** With `inTheWay`, the walk only collects obstacles and changes nothing. */
type Walk = PlaceOptions & { readonly inTheWay?: string[] };

async function walk(from: HeldDirectory, to: HeldDirectory, how: Walk): Promise<void> {
  const [{ dev: here }, { dev: there }] = await Promise.all([from.handle.stat(), to.handle.stat()]);
  if (here !== there && how.inTheWay === undefined) return acrossDevices(from, to, how);
  for (const entry of await from.entries()) {
    how.signal?.throwIfAborted();
    // rename(2) can also fail within one filesystem: between two mounts (a bind mount), or into a directory that passes on
    // another project ID.
    if (!(await placeEntry(from, to, entry, how))) return acrossDevices(from, to, how);
  }
}

/** Returns false, without any change, if the kernel cannot rename between the two directories (EXDEV). */
async function placeEntry(from: HeldDirectory, to: HeldDirectory, entry: Entry, how: Walk): Promise<boolean> {
  const [node, there] = await Promise.all([from.lstat(entry), to.lstat(entry)]);
  if (node === undefined)
    throw new AgentError('FILE_ERROR', `${from.nameOf(entry)} vanished while files were restored`);
  const path = to.nameOf(entry);
  if (how.overwrite && node.isDirectory() && there?.isDirectory() === true) {
    await merge(from, to, entry, how);
    return true;
  }
  const obstacle = there === undefined ? undefined : obstacleOf(node, there, how.overwrite);
  if (obstacle !== undefined && how.inTheWay === undefined)
    throw new AgentError('FILE_EXISTS', `${path} ${obstacle}`);
  if (obstacle !== undefined) how.inTheWay?.push(`${path} ${obstacle}`);
  if (how.inTheWay !== undefined) return true;
  try {
    await rename(from.at(entry), to.at(entry));
    return true;
  } catch (error) {
    if (errnoCode(error) === 'EXDEV') return false;
    throw notPlaced(path, error);
  }
}

function notPlaced(path: string, cause: unknown): AgentError {
  return new AgentError(
    'FILE_ERROR',
    `Cannot put ${path} into its place: ${errnoCode(cause) ?? String(cause)}`,
    {
      hint: 'Another process changed the directory in the meantime; run the command again',
      cause,
    },
  );
}

type Node = Pick<Stats, 'isDirectory' | 'isSymbolicLink' | 'isFile'>;

/** Returns why the existing entry must not be replaced; undefined if it can be. */
function obstacleOf(node: Node, there: Node, overwrite: boolean): string | undefined {
  if (!overwrite) return 'exists already';
  if (node.isDirectory()) return `is a directory in the recovery point, and ${kindOf(there)} here`;
  return there.isDirectory() ? `is a directory here, and ${kindOf(node)} in the recovery point` : undefined;
}

function kindOf(node: Node): string {
  if (node.isSymbolicLink()) return 'a symbolic link';
  return node.isFile() ? 'a file' : 'something else';
}

async function merge(from: HeldDirectory, to: HeldDirectory, entry: Entry, how: Walk): Promise<void> {
  const source = await from.child(entry);
  try {
    const target = await to.child(entry).catch((cause: unknown) => {
      throw new AgentError(
        'FILE_ERROR',
        `${to.nameOf(entry)} was replaced by another process while files were restored`,
        {
          cause,
        },
      );
    });
    try {
      // Read before the entries leave the directory, since that changes its times.
      const attributes = readAttributes(source.handle.fd);
      await walk(source, target, how);
      if (how.inTheWay === undefined && how.copyFailed?.() !== true) setAttributes(target, attributes);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/**
 * Copies the remaining entries of `from` into a second staging directory inside `to`. Needed if the kernel cannot rename
 * from `from` to `to` (another filesystem, a subvolume, a bind mount, another project ID).
 */
async function acrossDevices(from: HeldDirectory, to: HeldDirectory, how: PlaceOptions): Promise<void> {
  const staging = await Staging.make(to);
  try {
    await how.copy(from, staging.tree);
    for (const entry of await staging.tree.entries())
      if (!(await placeEntry(staging.tree, to, entry, how))) throw notPlaced(to.nameOf(entry), 'EXDEV');
  } finally {
    await staging.remove();
  }
}

/** Throws FILE_ERROR. */
export function setAttributes(directory: HeldDirectory, attributes: Attributes): void {
  try {
    writeAttributes(directory.handle.fd, attributes);
  } catch (cause) {
    throw new AgentError(
      'FILE_ERROR',
      `${directory.name} cannot keep the metadata of the recovery point: ${errnoCode(cause) ?? String(cause)}`,
      { hint: 'Restore to a filesystem that supports owners and extended attributes', cause },
    );
  }
}
