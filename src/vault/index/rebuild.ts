/**
 * Building the index anew from the store: before anything is said to be lost or damaged that the index alone says so of
 * (docs/formats/vault.md, "The index").
 */
import type { VaultParts } from '../packs/vault-parts.ts';
import type { ChunkIndex } from './chunk-index.ts';
import { refreshLock } from './lock.ts';
import { type RefreshOptions, refreshLocked } from './refresh.ts';

/**
 * Discards the index and reads the directories of all packs. Not where another one of this machine has done so since
 * `since` (milliseconds since 1970), which is as good. Rejects as `refreshIndex` does.
 */
export async function rebuildIndex(
  vault: VaultParts,
  index: ChunkIndex,
  since: number,
  options: RefreshOptions = {},
): Promise<void> {
  const release = await refreshLock(index.path, options.signal);
  try {
    index.reopenIfReplaced();
    if (index.isBuiltSince(since)) return;
    index.discard();
    await refreshLocked(vault, index, options);
  } finally {
    release();
  }
}
