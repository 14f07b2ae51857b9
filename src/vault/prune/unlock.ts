/** Declares a writer or a pruner stale on request of the user (docs/formats/vault.md, "Stale writers and locks"). */
import { AgentError } from '../../base/errors.ts';
import { withDeletePermission } from '../delete-permission.ts';
import type { StoreOptions } from '../store/object-store.ts';
import type { Vault } from '../vault.ts';
import { removeLock } from './lock.ts';
import { type Participant, declareStale, listLocks, listWriters } from './participants.ts';

export interface AtWork {
  readonly writers: readonly Participant[];
  readonly locks: readonly Participant[];
}

/** Returns the active writers and locks, so the user can choose one. */
export async function listAtWork(vault: Vault, options: StoreOptions = {}): Promise<AtWork> {
  return { writers: await listWriters(vault, options), locks: await listLocks(vault, options) };
}

/**
 * `text` is an ID or its first digits (at least 4). A writer that is still running notices it before its point
 * counts, and a pruner before it deletes. Throws BAD_USAGE if none or more than one matches.
 */
export async function unlockVault(
  vault: Vault,
  text: string,
  options: StoreOptions = {},
): Promise<{ role: 'writer' | 'lock'; participant: Participant }> {
  const { writers, locks } = await listAtWork(vault, options);
  const found = [
    ...writers.map((participant) => ({ role: 'writer' as const, participant })),
    ...locks.map((participant) => ({ role: 'lock' as const, participant })),
  ].filter(({ participant }) => text.length >= 4 && participant.id.startsWith(text.toLowerCase()));
  const [first] = found;
  if (first === undefined || found.length > 1)
    throw new AgentError(
      'BAD_USAGE',
      `"${text}" matches ${found.length} of the ${writers.length} writers and ${locks.length} locks of ${vault.name}`,
      { hint: 'give one ID, or at least 4 digits of it' },
    );
  if (first.role === 'writer') await declareStale(vault, first.participant.id, options);
  else await withDeletePermission('to remove a lock', () => removeLock(vault, first.participant.id, options));
  return first;
}
