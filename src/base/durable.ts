/**
 * Durable files and names. After a power failure, either the old file or the new file is there, complete. A file's
 * bytes are durable after the file was synced. Its name is durable after its directory was synced, later than the file.
 */
import { constants } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileFailure } from './files.ts';

/** Makes the names in the directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/**
 * Replaces a file by one of mode 0600, which is written to `PATH.new`, synced and renamed. The file is durable when the
 * function resolves. For one writer at a time. Throws FILE_ERROR; the old file is still there then.
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
