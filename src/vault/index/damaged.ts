/**
 * Handles an index that turns out to be damaged during some work. The file is already removed then, and the work can
 * start again.
 */
import { AgentError } from '../../base/errors.ts';
import type { ChunkIndex } from './chunk-index.ts';

export function isIndexDamage(error: unknown): boolean {
  return error instanceof AgentError && error.code === 'VAULT_INDEX_DAMAGED';
}

/** Runs the work again with a new index if the index turns out to be damaged. */
export async function againIfDamaged<T>(index: ChunkIndex, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isIndexDamage(error)) throw error;
    index.reopenIfReplaced();
    return work();
  }
}
