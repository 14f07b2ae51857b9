/** Opens mount points: a filesystem is frozen and thawed by a descriptor of its mount point. */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, stat } from 'node:fs/promises';
import { boundedCall, boundedOpen, isNoAnswer } from '../base/bounded-call.ts';
import { AgentError, errnoCode } from '../base/errors.ts';
import { filePath } from '../base/file-name.ts';

const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/**
 * Opens a mount point: a directory, or a file, because a bind mount may be a single file (in containers). Throws
 * FREEZE_FAILED, and NO_ANSWER if the filesystem hangs.
 */
export async function openMount(path: string): Promise<FileHandle> {
  try {
    refuseSpecial(path, await boundedCall('stat', path, () => stat(filePath(path))));
    return await boundedOpen(path, flags);
  } catch (thrown) {
    throw isNoAnswer(thrown) ? thrown : openFailure(path, thrown);
  }
}

/** Throws for special files: opening a device node would open the device. */
function refuseSpecial(path: string, node: Stats): void {
  if (node.isDirectory() || node.isFile()) return;
  throw new AgentError(
    'FREEZE_FAILED',
    `${path} is a special file, by which its filesystem cannot be frozen`,
    {
      hint: 'mount the filesystem at a directory as well',
    },
  );
}

function openFailure(path: string, cause: unknown): AgentError {
  if (cause instanceof AgentError) return cause;
  return new AgentError('FREEZE_FAILED', `${path} cannot be opened (${errnoCode(cause) ?? String(cause)})`, {
    hint: 'check that it is still mounted',
    cause,
  });
}
