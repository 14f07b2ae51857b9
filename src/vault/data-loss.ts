/** Distinguishes lost data from other errors. */
import { AgentError } from '../base/errors.ts';

/** Returns true if the error proves that a chunk or page is lost. Other errors prove nothing about the vault. */
export function isDataLossError(error: unknown): error is AgentError {
  return error instanceof AgentError && ['VAULT_CHUNK_LOST', 'VAULT_DAMAGED'].includes(error.code);
}
