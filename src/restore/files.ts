/**
 * Single files and directories out of an image: mounted read-only for that time, and copied by cp, which keeps owners,
 * modes, times, extended attributes and with them ACLs and capabilities, hard links among what is copied, holes, symbolic
 * links and device nodes. Flags of chattr and project ids are not kept.
 */
import { mkdir, mkdtemp, readdir, rmdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { AgentError } from '../base/errors.ts';
import { type MountOptions, mountImage, takeDown } from './mount/mount.ts';
import { runTool } from './mount/tools.ts';
import { resolveInside } from './resolve-inside.ts';

export interface RestoreFilesOptions extends Omit<MountOptions, 'directory' | 'purpose'> {
  /** Within the filesystem; a leading slash means its root. `/` or `.` is all of it. */
  readonly paths: readonly string[];
  /** Each path is put below this directory with all of its parents. It is made, or has to be empty. */
  readonly to: string;
  /** Into a directory that holds something; what is there under the same name is replaced. */
  readonly overwrite?: boolean;
}

export interface RestoredFiles {
  /** As they are below the destination. */
  readonly paths: readonly string[];
  readonly seconds: number;
}

/** Throws FILE_ERROR (no such path, cp's complaints), FILE_EXISTS, and what mounting throws. */
export async function restoreFiles(options: RestoreFilesOptions): Promise<RestoredFiles> {
  const { runDirectory, signal, overwrite = false } = options;
  const started = performance.now();
  if (options.paths.length === 0)
    throw new AgentError('BAD_USAGE', 'No path was named that is to be restored');
  const to = resolve(options.to);
  await prepare(to, overwrite);
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  const directory = await mkdtemp(join(runDirectory, 'files-'));
  try {
    const record = await mountImage({ ...options, directory, purpose: 'files' });
    try {
      const paths: string[] = [];
      for (const path of options.paths) paths.push(await resolveInside(directory, path));
      const args = [
        '-dR',
        '--preserve=mode,ownership,timestamps,links,xattr',
        '--sparse=auto',
        '--reflink=never',
      ];
      // A name that is a directory here and a link there is not followed.
      if (overwrite) args.push('--remove-destination');
      const { code, stderr } = await runTool('cp', [...args, '--parents', '--', ...paths, to], {
        cwd: directory,
        allow: [1],
        signal,
      });
      if (code !== 0)
        throw new AgentError('FILE_ERROR', `Not everything could be copied to ${to}: ${lines(stderr)}`, {
          hint: 'the destination must be able to keep owners and extended attributes; see the message of cp',
        });
      return { paths, seconds: (performance.now() - started) / 1000 };
    } finally {
      await takeDown(record, runDirectory);
    }
  } finally {
    await rmdir(directory).catch(() => undefined);
  }
}

function lines(text: string): string {
  const all = text.trim().split('\n');
  return [...all.slice(0, 3), ...(all.length > 3 ? [`and ${all.length - 3} more`] : [])].join('; ');
}

async function prepare(to: string, overwrite: boolean): Promise<void> {
  const node = await stat(to).catch(() => undefined);
  if (node === undefined) {
    await mkdir(to, { recursive: true });
    return;
  }
  if (!node.isDirectory()) throw new AgentError('FILE_ERROR', `${to} is no directory`);
  if (!overwrite && (await readdir(to)).length > 0)
    throw new AgentError('FILE_EXISTS', `${to} is not empty`, {
      hint: 'choose a new directory, or replace what has the same name there (--overwrite)',
    });
}
