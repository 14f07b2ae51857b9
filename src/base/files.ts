/**
 * Turns errors of files into FILE_ERROR. Only ENOENT means that the file does not exist. After any other error (EIO,
 * EMFILE, EACCES, …) it is unknown if the file exists, so the caller must never treat the file as absent.
 */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AgentError, errnoCode, systemHints } from './errors.ts';

/** Returns the result of `read`, or undefined if ENOENT. Throws FILE_ERROR for any other system error. */
export async function unlessAbsent<T>(path: string, read: Promise<T>): Promise<T | undefined> {
  try {
    return await read;
  } catch (thrown) {
    if (errnoCode(thrown) === 'ENOENT') return undefined;
    throw fileFailure(path, 'read', thrown);
  }
}

/** Turns a system error into FILE_ERROR with path, errno's name and next step. Returns other errors unchanged. */
export function fileFailure(path: string, done: 'read' | 'written' | 'made', thrown: unknown): unknown {
  const code = errnoCode(thrown);
  if (thrown instanceof AgentError || code === undefined || !/^E[A-Z0-9]+$/.test(code)) return thrown;
  return new AgentError('FILE_ERROR', `${path} cannot be ${done}: ${code}`, {
    hint: systemHints[code] ?? 'check the path, its permissions and its filesystem, then start again',
    cause: thrown,
  });
}

/** Runs `work`, which makes or writes the file at `path`. Throws FILE_ERROR for a system error. */
export function writing<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw fileFailure(path, 'written', thrown);
  }
}

/** `writing` for asynchronous work. */
export async function writingAsync<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw fileFailure(path, 'written', thrown);
  }
}

/**
 * Makes a directory of mode 0700, and the missing directories above it. An existing directory is not changed. Throws
 * FILE_ERROR. Node's own recursive mkdir is not used, because it reports ENOENT on a read-only filesystem.
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
