/**
 * The room that a prune needs on a full disk: a lock, lists, and the copies of one pack (docs/formats/vault.md,
 * "Room").
 */
import { MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { Vault } from '../vault.ts';

/** Reserves the room if it is not reserved yet. A failure is ignored. */
export async function keepRoom({ store, packSize }: Pick<Vault, 'store' | 'packSize'>): Promise<void> {
  try {
    await store.room?.keep(packSize + MiB);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
  }
}
