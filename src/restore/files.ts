/**
 * Restores single files and directories from an image. The image is mounted read-only in the meantime, and cp copies the
 * files. cp keeps owners, modes, times, extended attributes (also ACLs and capabilities), hard links among the copied
 * files, holes, symbolic links and device nodes. It does not keep flags of chattr and project IDs.
 *
 * The destination may belong to another user, who may change it while root restores into it. So cp copies into a staging
 * directory that only root can enter. Then each entry is renamed into its place (files/place-files.ts).
 */
import { mkdir, mkdtemp, readdir, rmdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { AgentError } from '../base/errors.ts';
import { HeldDirectory, holdDirectory } from '../base/held-directory.ts';
import { removeUnproven } from './files/remove-unproven.ts';
import { Staging, placeFiles, setAttributes } from './files/place-files.ts';
import { type Attributes, readAttributes } from '../linux/attributes.ts';
import { type MountOptions, mountImage, takeDown } from './mount/mount.ts';
import { runTool } from './mount/tools.ts';
import { resolveInside } from './resolve-inside.ts';

export interface RestoreFilesOptions extends Omit<MountOptions, 'directory' | 'purpose'> {
  /** Paths within the filesystem; a leading slash means its root. `/` or `.` is the whole filesystem. */
  readonly paths: readonly string[];
  /** Each path is put below this directory with all its parents. The directory is created, or must be empty. */
  readonly to: string;
  /** The directory may have entries. Files and links of the same name are replaced; directories are merged. */
  readonly overwrite?: boolean;
}

export interface RestoredFiles {
  /** Paths below the destination. */
  readonly paths: readonly string[];
  readonly seconds: number;
}

const copyOptions = [
  '-dR',
  '--preserve=mode,ownership,timestamps,links,xattr',
  '--sparse=auto',
  '--reflink=never',
];

/** Throws FILE_ERROR (no such path, errors of cp), FILE_EXISTS, and the errors of mounting. */
export async function restoreFiles(options: RestoreFilesOptions): Promise<RestoredFiles> {
  const { runDirectory, overwrite = false } = options;
  const started = performance.now();
  if (options.paths.length === 0) throw new AgentError('BAD_USAGE', 'No path to restore is given');
  const to = resolve(options.to);
  const destination = await holdDirectory(to);
  try {
    if (!overwrite && (await readdir(destination.path)).length > 0)
      throw new AgentError('FILE_EXISTS', `${to} is not empty`, {
        hint: 'choose an empty directory, or give --overwrite to replace files of the same name',
      });
    await mkdir(runDirectory, { recursive: true, mode: 0o700 });
    const directory = await mkdtemp(join(runDirectory, 'files-'));
    try {
      const record = await mountImage({ ...options, directory, purpose: 'files' });
      try {
        const paths: string[] = [];
        for (const path of options.paths) paths.push(await resolveInside(directory, path));
        await copyInto(destination, directory, paths, options);
        return { paths, seconds: (performance.now() - started) / 1000 };
      } finally {
        await takeDown(record, runDirectory);
      }
    } finally {
      await rmdir(directory).catch(() => undefined);
    }
  } finally {
    await destination.close();
  }
}

/** Copies `paths` below `directory` to the destination, through a staging directory. */
async function copyInto(
  destination: HeldDirectory,
  directory: string,
  paths: readonly string[],
  { overwrite = false, signal }: RestoreFilesOptions,
): Promise<void> {
  const complaints: string[] = [];
  let removed = 0;
  const copy = async (from: HeldDirectory, chosen: readonly string[], tree: HeldDirectory): Promise<void> => {
    const args = [...copyOptions, '--parents', `--target-directory=${tree.path}`, '--', ...chosen];
    const { code, stderr } = await runTool('cp', args, { cwd: from.path, allow: [1], signal });
    if (code === 0) return;
    complaints.push(stderr);
    removed += await removeUnproven(from, tree, signal);
  };
  const copyFailed = (): boolean => complaints.length > 0;
  let root: Attributes | undefined;
  const source = await HeldDirectory.open(directory);
  try {
    const staging = await Staging.make(destination);
    try {
      await copy(source, paths, staging.tree);
      // The whole filesystem is restored, so the metadata of its root directory is restored too.
      if (paths.includes('.')) root = readAttributes(staging.tree.handle.fd);
      await placeFiles(staging.tree, destination, {
        overwrite,
        copy: (from, to) => copy(from, ['.'], to),
        copyFailed,
        signal,
      });
    } finally {
      await staging.remove();
    }
  } finally {
    await source.close();
  }
  if (copyFailed()) {
    const leftOut =
      removed === 0
        ? ''
        : ` (${removed} ${removed === 1 ? 'file was' : 'files were'} not whole and not put into place)`;
    throw new AgentError(
      'FILE_ERROR',
      `Not everything could be copied to ${destination.name}${leftOut}: ${lines(complaints.join('\n'))}`,
      {
        hint: 'See the message of cp. The destination needs free space, and must support owners and extended attributes',
      },
    );
  }
  if (root !== undefined) setAttributes(destination, root);
}

function lines(text: string): string {
  const all = text.trim().split('\n');
  return [...all.slice(0, 3), ...(all.length > 3 ? [`and ${all.length - 3} more`] : [])].join('; ');
}
