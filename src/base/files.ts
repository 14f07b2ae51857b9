/**
 * What an error of a file means. ENOENT alone says that nothing is there; any other error (EIO, EMFILE, EACCES, …) says
 * nothing of what is there, and must never be taken for absence.
 */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AgentError, errnoCode, systemHints } from './errors.ts';

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
    hint: systemHints[code] ?? 'check the path, its permissions and its filesystem, then start again',
    cause: thrown,
  });
}

/** Runs `work`, which makes or writes what is at `path`. Throws FILE_ERROR for a system error. */
export function writing<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw fileFailure(path, 'written', thrown);
  }
}

/** The same, for what takes its time. */
export async function writingAsync<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw fileFailure(path, 'written', thrown);
  }
}

/**
 * Makes a directory for root alone, and those above it; one that is there stays as it is. Throws FILE_ERROR. Node's own
 * recursive mkdir says ENOENT on a read-only filesystem.
 */
export async function makeDirectory(path: string): Promise<void> {
  const made = (): Promise<void> =>
    mkdir(path, { mode: 0o700 }).catch((thrown: unknown) => {
      if (errnoCode(thrown) !== 'EEXIST') throw thrown;
    });
  try {
    await made();
  } catch (thrown) {
    if (errnoCode(thrown) !== 'ENOENT' || dirname(path) === path) throw fileFailure(path, 'made', thrown);
    await makeDirectory(dirname(path));
    await made().catch((again: unknown) => {
      throw fileFailure(path, 'made', again);
    });
  }
}
