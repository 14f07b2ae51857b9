/** What the clock of a store says: an object is put there, and its time of modification is read. */
import { AgentError } from '../base/errors.ts';
import { newId } from './ids.ts';
import { asDeleter } from './may-delete.ts';
import type { StoreOptions } from './store/object-store.ts';
import type { Vault } from './vault.ts';

/**
 * Milliseconds since 1970. For work that deletes: throws VAULT_DENIED if these credentials may not. The object is a
 * heartbeat of no lock, so one that stays counts for nothing, and the next pruner removes it. On a full store the clock
 * here has to do, since what deletes makes room.
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
  await asDeleter(what, () => vault.store.delete(key, options));
  return modified;
}
