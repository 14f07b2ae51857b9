/**
 * Puts a tree that was copied into a staging directory into its place. The staging directory is beside the place, on the
 * same filesystem, and nobody but root can enter it. So files appear in the destination whole, with owners, setuid bits,
 * capabilities and ACLs, by one rename each (whole directories, where there is none yet), and no symbolic link of the
 * destination is followed, whoever changes the destination in the meantime.
 */
import type { Stats } from 'node:fs';
import { mkdir, rename, rm, rmdir } from 'node:fs/promises';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import { type Attributes, readAttributes, writeAttributes } from '../../linux/attributes.ts';
import type { Entry, HeldDirectory } from '../../base/held-directory.ts';
import { provePrivate } from './private-directory.ts';

export interface PlaceOptions {
  /** Files that are there are replaced. */
  readonly overwrite: boolean;
  /** Copies the contents of one directory into another, with all their metadata. What it leaves there is whole. */
  readonly copy: (from: HeldDirectory, to: HeldDirectory) => Promise<void>;
  /**
   * A copy reported an error, so the metadata of staged directories are not proven: those of directories that are there
   * stay. Default: no copy did.
   */
  readonly copyFailed?: () => boolean;
  readonly signal?: AbortSignal | undefined;
}

export class Staging {
  /** What is to be put into its place is copied into this one; the one around it keeps others out. */
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

  /** Throws FILE_ERROR if somebody interferes, and errno's errors. */
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
    // Not if it was moved away: what has its name then is somebody else's.
    await rmdir(this.#place.at(this.#entry)).catch(() => undefined);
  }
}

/**
 * Puts what is in `from` into `to`. Directories that are there are merged, and get the metadata of the tree's. Throws
 * FILE_EXISTS before anything was changed if something is in the way that is not replaced, FILE_ERROR.
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
      hint: 'Nothing was changed. Remove what is in the way, or restore to another directory',
    });
  }
  await walk(from, to, options);
}

/** With `inTheWay` nothing is changed. */
type Walk = PlaceOptions & { readonly inTheWay?: string[] };

async function walk(from: HeldDirectory, to: HeldDirectory, how: Walk): Promise<void> {
  const [{ dev: here }, { dev: there }] = await Promise.all([from.handle.stat(), to.handle.stat()]);
  if (here !== there && how.inTheWay === undefined) return acrossDevices(from, to, how);
  for (const entry of await from.entries()) {
    how.signal?.throwIfAborted();
    // One filesystem may refuse, too: rename(2) never goes from mount to mount (a bind mount), nor into a directory that
    // hands down another project id.
    if (!(await placeEntry(from, to, entry, how))) return acrossDevices(from, to, how);
  }
}

/** Returns false if the kernel does not rename from one directory to the other (EXDEV). Nothing was changed then. */
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
    `${path} cannot be put into its place: ${errnoCode(cause) ?? String(cause)}`,
    {
      hint: 'Another process changed the directory in the meantime; run the command again',
      cause,
    },
  );
}

type Node = Pick<Stats, 'isDirectory' | 'isSymbolicLink' | 'isFile'>;

/** Undefined if what is there is replaced. */
function obstacleOf(node: Node, there: Node, overwrite: boolean): string | undefined {
  if (!overwrite) return 'is there already';
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
        `${to.nameOf(entry)} was replaced by somebody while files were restored`,
        {
          cause,
        },
      );
    });
    try {
      // Before the entries leave it, which alters its times.
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
 * The kernel does not rename from `from` to `to` (another filesystem, a subvolume, a bind mount, another project id). So
 * what is left in `from` is staged once more, inside `to`.
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
      `${directory.name} does not keep the metadata of the recovery point: ${errnoCode(cause) ?? String(cause)}`,
      { hint: 'The destination must be able to keep owners and extended attributes', cause },
    );
  }
}
