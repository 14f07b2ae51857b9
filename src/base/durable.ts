/**
 * Files that a power cut leaves whole, the old one or the new one, and names that are there to stay once a function
 * resolves: a file's bytes are durable when it was synced, its name when its directory was synced after that.
 */
import { constants } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileFailure } from './files.ts';

/** Makes durable which names the directory has. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/**
 * Puts a file of mode 0600 in the place of the one before: written beside it (`PATH.new`), synced, renamed. Durable when
 * it resolves. For one writer at a time. Throws FILE_ERROR; the one before is still there then.
 */
export async function replaceFile(path: string, ...parts: readonly (string | Uint8Array)[]): Promise<void> {
  const beside = `${path}.new`;
  try {
    const file = await open(beside, 'w', 0o600);
    try {
      for (const part of parts) await file.writeFile(part);
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(beside, path);
    await syncDirectory(dirname(path));
  } catch (thrown) {
    throw fileFailure(path, 'written', thrown);
  }
}
