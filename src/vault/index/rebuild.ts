/**
 * Rebuilds the index from the store. This is done before data is reported lost or damaged only because of the index
 * (docs/formats/vault.md, "The index").
 */
import type { VaultCore } from '../packs/vault-core.ts';
import type { ChunkIndex } from './chunk-index.ts';
import { refreshLock } from './lock.ts';
import { type RefreshOptions, refreshLocked } from './refresh.ts';

/**
 * Discards the index and reads the directories of all packs. Does nothing if another process of this machine has done
 * so since `since` (milliseconds since 1970). Rejects like `refreshIndex`.
 */
export async function rebuildIndex(
  vault: VaultCore,
  index: ChunkIndex,
  since: number,
  options: RefreshOptions = {},
): Promise<void> {
  const release = await refreshLock(index, options.signal);
  try {
    index.reopenIfReplaced();
    if (index.isBuiltSince(since)) return;
    index.discard();
    await refreshLocked(vault, index, options);
  } finally {
    release();
  }
}
