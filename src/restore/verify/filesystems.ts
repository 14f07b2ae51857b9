/**
 * Checks the filesystems of an image with their own checkers, e2fsck and xfs_repair. The checkers read the attached image
 * and change nothing. Journals are not replayed.
 */
import { AgentError } from '../../base/errors.ts';
import { readUsedMap } from '../../filesystems/read-used-map.ts';
import { identifyProcess } from '../../linux/process.ts';
import { type ImageReader, readAtOf, sliceOf } from '../image/image-reader.ts';
import { openImage } from '../image/open-image.ts';
import { type AttachOptions, attach, detach, loopOver } from '../mount/attach.ts';
import { findFilesystems } from '../mount/filesystem-choice.ts';
import { type MountSubject, newRecord } from '../mount/mount-record.ts';
import { runTool } from '../mount/tools.ts';
import { problemsOfExt, problemsOfXfs, saysLogIsDirty } from './complaints.ts';

export interface CheckedFilesystem {
  readonly partition: number | undefined;
  readonly type: string | undefined;
  /** There is no checker for this type. */
  readonly skipped: boolean;
  /** Texts for the user; empty if the filesystem is intact. */
  readonly problems: readonly string[];
}

export interface CheckFilesystemsOptions extends AttachOptions {
  readonly subject: MountSubject;
}

/** Throws NOT_SUPPORTED (a checker is not installed), CANCELLED, and the errors of attaching. */
export async function checkFilesystems(options: CheckFilesystemsOptions): Promise<CheckedFilesystem[]> {
  const { signal } = options;
  const image = await openImage(options.image, { signal });
  try {
    return await checkAll(image, options);
  } finally {
    await image.close();
  }
}

async function checkAll(image: ImageReader, options: CheckFilesystemsOptions): Promise<CheckedFilesystem[]> {
  const { runDirectory, sectorSize, subject, signal } = options;
  const found = await findFilesystems(image, sectorSize);
  const wanted = found.filter(({ type }) => checkerOf(type) !== undefined);
  const result: CheckedFilesystem[] = found
    .filter(({ type }) => checkerOf(type) === undefined)
    .map(({ partition, type }) => ({ partition, type, skipped: true, problems: [] }));
  for (const { partition, type, offset, size } of wanted) {
    const record = await newRecord(runDirectory, subject, 'check', await identifyProcess(process.pid));
    try {
      await attach(record, options);
      const part = partition === undefined ? undefined : { offset, size };
      const device = await loopOver(record, runDirectory, part, sectorSize);
      const problems = await checkerOf(type)!(device, sliceOf(image, offset, size), signal);
      result.push({ partition, type, skipped: false, problems });
    } finally {
      await detach(record, runDirectory);
    }
  }
  return result.sort((a, b) => (a.partition ?? 0) - (b.partition ?? 0));
}

type Checker = (device: string, image: ImageReader, signal: AbortSignal | undefined) => Promise<string[]>;

function checkerOf(type: string | undefined): Checker | undefined {
  if (type === 'xfs')
    return async (device, image, signal) => {
      const { code, stdout, stderr } = await runTool('xfs_repair', ['-n', device], { allow: [1, 2], signal });
      // If the log must be replayed, xfs_repair checks no further without -L, which writes.
      if (code === 2) return [`xfs_repair cannot check it: ${stderr.trim().split('\n')[0] ?? ''}`];
      const output = `${stdout}${stderr}`;
      if (!saysLogIsDirty(output)) return problemsOfXfs(output, false);
      // Our own reader distinguishes the harmless log of a freeze from one that must be replayed.
      const map = await readUsedMap(readAtOf(image), image.size, 512, { state: 'idle' });
      return [...problemsOfXfs(output, !map.everything), ...(map.everything ? map.warnings : [])];
    };
  if (type !== undefined && /^ext[234]$/.test(type))
    return async (device, _image, signal) => {
      const { code, stdout, stderr } = await runTool('e2fsck', ['-fn', device], {
        allow: [1, 2, 4, 8, 12],
        signal,
      });
      const problems = problemsOfExt(`${stdout}${stderr}`);
      if (code !== 0 && problems.length === 0)
        throw new AgentError(
          'MOUNT_FAILED',
          `e2fsck ended with exit code ${code}, but named no problem: ${stderr.trim()}`,
        );
      return code === 0 ? [] : problems;
    };
  return undefined;
}
