/** How processes of the model end, and which ends are all right. */
import { AgentError } from '../../../src/base/errors.ts';
import { StoreKilled } from '../stores/faulty-store.ts';

export type AgentKind = 'backup' | 'prune' | 'check';

export function outcomeOf(error: unknown): string {
  if (error instanceof StoreKilled) return 'killed';
  return error instanceof AgentError ? error.code : 'failed';
}

/**
 * Returns whether this may end a process of this kind although the vault has no damage. `isStale`: the process is a writer
 * that was declared stale.
 */
export function isExpected(kind: AgentKind, error: unknown, isStale = false): boolean {
  if (error instanceof StoreKilled) return true;
  if (!(error instanceof AgentError)) return false;
  // The last one: an ID that repeated together with the random numbers.
  if (['VAULT_UNREACHABLE', 'VAULT_FULL', 'VAULT_INDEX_DAMAGED', 'VAULT_OBJECT_EXISTS'].includes(error.code))
    return true;
  if (kind === 'prune') return error.code === 'VAULT_LOCKED';
  if (kind === 'check') return false;
  // Another writer has published under its ID.
  if (error.code === 'VAULT_POINT_WITHDRAWN' && /clone or snapshot/.test(error.message)) return true;
  // The packs of such a writer may be gone. No other writer may say that the vault lacks data.
  return isStale && ['VAULT_POINT_WITHDRAWN', 'VAULT_DAMAGED', 'VAULT_CHUNK_LOST'].includes(error.code);
}
