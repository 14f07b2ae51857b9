/** Key files on this machine: mode 0600, replaced in one step, and durable before a vault uses them. */
import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AgentError, errnoCode, systemHints } from '../base/errors.ts';
import { makeDirectories, syncFolder } from './store/durable.ts';

/** Creates the file, and its directory (0700) if it is missing. Throws FILE_EXISTS, FILE_ERROR. */
export async function makeKeyFile(path: string, text: string): Promise<void> {
  try {
    await makeDirectories(dirname(path), 0o700);
    await write(path, text);
  } catch (error) {
    if (errnoCode(error) === 'EEXIST')
      throw new AgentError('FILE_EXISTS', `${path} exists and is not overwritten`, {
        cause: error,
      });
    throw failed(path, error);
  }
}

/** Replaces the text in one step. Throws FILE_ERROR. */
export async function replaceKeyFile(path: string, text: string): Promise<void> {
  const draft = `${path}.new`;
  try {
    await rm(draft, { force: true });
    await write(draft, text);
    await rename(draft, path);
    await syncFolder(dirname(path));
  } catch (error) {
    throw failed(path, error);
  }
}

async function write(path: string, text: string): Promise<void> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const handle: FileHandle = await open(path, flags, 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    await handle.close();
  }
}

function failed(path: string, error: unknown): AgentError {
  const code = errnoCode(error);
  return new AgentError('FILE_ERROR', `${path} cannot be written: ${code ?? String(error)}`, {
    hint:
      systemHints[code ?? ''] ??
      'create vaults and keys as root, or choose another directory with --state-dir',
    cause: error,
  });
}
