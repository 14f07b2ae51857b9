/** Explains a refused delete: credentials may be allowed to add but not to delete (docs/vault.md, "Who may delete"). */
import { AgentError } from '../base/errors.ts';

/**
 * Runs deletes. If the store refuses them, the hint of VAULT_DENIED names the work that needs the delete permission.
 */
export async function withDeletePermission<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isDenied(error)) throw error;
    throw new AgentError('VAULT_DENIED', error.message, {
      hint: `use credentials with delete permission ${what}; machines that only back up should not have it`,
      cause: error,
    });
  }
}

export function isDenied(error: unknown): error is AgentError {
  return error instanceof AgentError && error.code === 'VAULT_DENIED';
}
