/** Reads the clock of a store: puts an object and reads its modification time. */
import { AgentError } from '../base/errors.ts';
import { newId } from './ids.ts';
import { withDeletePermission } from './delete-permission.ts';
import type { StoreOptions } from './store/object-store.ts';
import type { Vault } from './vault.ts';

/**
 * Returns milliseconds since 1970. Use it before work that deletes: throws VAULT_DENIED if these credentials may not
 * delete. The object is a heartbeat without a lock; if it remains, the next prune removes it. If the store is full,
 * the clock of this machine is used, because deleting makes room.
 */
export async function storeClock(vault: Vault, what: string, options: StoreOptions = {}): Promise<number> {
  const key = `locks/${newId()}.beat`;
  try {
    await vault.store.put(key, Buffer.from('\n'), options);
  } catch (error) {
    if (error instanceof AgentError && error.code === 'VAULT_FULL') return Date.now();
    throw error;
  }
  const modified = (await vault.store.head(key, options))?.modified ?? 0;
  await withDeletePermission(what, () => vault.store.delete(key, options));
  return modified;
}
