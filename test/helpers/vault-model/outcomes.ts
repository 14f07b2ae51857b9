/** How processes of the model end, and which ends are all right. */
import { AgentError } from '../../../src/base/errors.ts';
import { StoreKilled } from '../stores/faulty-store.ts';

export type AgentKind = 'backup' | 'prune' | 'check';

export function outcomeOf(error: unknown): string {
  if (error instanceof StoreKilled) return 'killed';
  return error instanceof AgentError ? error.code : 'failed';
}

/** Returns whether this may end a process of this kind although the vault has no damage. */
export function isExpected(kind: AgentKind, error: unknown): boolean {
  if (error instanceof StoreKilled) return true;
  if (!(error instanceof AgentError)) return false;
  // The last one: an id that came again after the random numbers did.
  if (['VAULT_UNREACHABLE', 'VAULT_FULL', 'VAULT_INDEX_DAMAGED', 'VAULT_OBJECT_EXISTS'].includes(error.code))
    return true;
  if (kind === 'prune') return error.code === 'VAULT_LOCKED';
  // A writer that was declared dead, and whose packs went.
  return (
    kind === 'backup' && ['VAULT_POINT_WITHDRAWN', 'VAULT_DAMAGED', 'VAULT_CHUNK_LOST'].includes(error.code)
  );
}
