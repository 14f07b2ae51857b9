/** What it means for a vault that something of it could not be read. */
import { AgentError } from '../base/errors.ts';

/** The chunk or page is not to be had; anything else that fails says nothing about the vault. */
export function isLoss(error: unknown): error is AgentError {
  return error instanceof AgentError && ['VAULT_CHUNK_LOST', 'VAULT_DAMAGED'].includes(error.code);
}
