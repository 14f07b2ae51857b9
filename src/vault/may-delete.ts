/** Deleting with credentials that may add, but not delete (docs/vault.md, "Who may delete"): what the refusal means. */
import { AgentError } from '../base/errors.ts';

/** Runs deletes. Where the store refuses them, VAULT_DENIED says what it is that needs the right to delete. */
export async function asDeleter<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isDenied(error)) throw error;
    throw new AgentError('VAULT_DENIED', error.message, {
      hint: `${what} takes credentials that may delete; those of machines that back up should not`,
      cause: error,
    });
  }
}

export function isDenied(error: unknown): error is AgentError {
  return error instanceof AgentError && error.code === 'VAULT_DENIED';
}
