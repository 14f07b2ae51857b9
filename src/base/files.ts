/**
 * What an error of a file means. ENOENT alone says that nothing is there; any other error (EIO, EMFILE, EACCES, …) says
 * nothing of what is there, and must never be taken for absence.
 */
import { AgentError, errnoCode } from './errors.ts';

/** The result of `read`; undefined if nothing is there (ENOENT). Throws FILE_ERROR for any other system error. */
export async function unlessAbsent<T>(path: string, read: Promise<T>): Promise<T | undefined> {
  try {
    return await read;
  } catch (thrown) {
    if (errnoCode(thrown) === 'ENOENT') return undefined;
    throw fileFailure(path, 'read', thrown);
  }
}

/** A system error as FILE_ERROR, with the path, its code and the next step. Anything else stays as it is. */
export function fileFailure(path: string, done: 'read' | 'written' | 'made', thrown: unknown): unknown {
  const code = errnoCode(thrown);
  if (thrown instanceof AgentError || code === undefined || !/^E[A-Z0-9]+$/.test(code)) return thrown;
  return new AgentError('FILE_ERROR', `${path} cannot be ${done}: ${code}`, {
    hint: hints[code] ?? 'check the path, its permissions and its filesystem, then start again',
    cause: thrown,
  });
}

const hints: Readonly<Record<string, string>> = {
  ENOSPC: 'make room on its filesystem (df, df -i), then start again',
  EDQUOT: 'raise the quota or make room on its filesystem, then start again',
  EROFS:
    'make its filesystem writable again (a filesystem with errors becomes read-only: see dmesg), then start again',
  EIO: 'check the disk below its filesystem (dmesg, smartctl), then start again',
  EMFILE: 'raise the limit of open files of the daemon (LimitNOFILE= in its unit), then start again',
  ENFILE: 'raise the limit of open files of the machine (sysctl fs.file-max), then start again',
};
