/**
 * Single files and directories out of an image: mounted read-only for that time, and copied by cp, which keeps owners,
 * modes, times, extended attributes and with them ACLs and capabilities, hard links among what is copied, holes, symbolic
 * links and device nodes. Flags of chattr and project ids are not kept.
 *
 * The destination may be another user's, who changes it while root restores into it. So cp copies into a staging directory
 * that only root can enter, and from there everything is renamed into its place (files/place-files.ts).
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
  /** Within the filesystem; a leading slash means its root. `/` or `.` is all of it. */
  readonly paths: readonly string[];
  /** Each path is put below this directory with all of its parents. It is made, or has to be empty. */
  readonly to: string;
  /** Into a directory that holds something; files and links of the same name are replaced, directories merged. */
  readonly overwrite?: boolean;
}

export interface RestoredFiles {
  /** As they are below the destination. */
  readonly paths: readonly string[];
  readonly seconds: number;
}

const copyOptions = [
  '-dR',
  '--preserve=mode,ownership,timestamps,links,xattr',
  '--sparse=auto',
  '--reflink=never',
];

/** Throws FILE_ERROR (no such path, cp's complaints), FILE_EXISTS, and what mounting throws. */
export async function restoreFiles(options: RestoreFilesOptions): Promise<RestoredFiles> {
  const { runDirectory, overwrite = false } = options;
  const started = performance.now();
  if (options.paths.length === 0)
    throw new AgentError('BAD_USAGE', 'No path was named that is to be restored');
  const to = resolve(options.to);
  const destination = await holdDirectory(to);
  try {
    if (!overwrite && (await readdir(destination.path)).length > 0)
      throw new AgentError('FILE_EXISTS', `${to} is not empty`, {
        hint: 'choose a new directory, or replace what has the same name there (--overwrite)',
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

/** `paths` below `directory`, by way of a staging directory in the destination. */
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
      // All of the filesystem was asked for, so its root is restored, too.
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
        hint: 'See the message of cp. The destination needs room, and must be able to keep owners and extended attributes',
      },
    );
  }
  if (root !== undefined) setAttributes(destination, root);
}

function lines(text: string): string {
  const all = text.trim().split('\n');
  return [...all.slice(0, 3), ...(all.length > 3 ? [`and ${all.length - 3} more`] : [])].join('; ');
}
