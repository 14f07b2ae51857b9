/** Reads many small sealed objects of a vault in parallel. */
import { AgentError } from '../../base/errors.ts';
import type { StoreOptions } from '../store/object-store.ts';
import { openDocument } from '../sealed.ts';
import type { Vault } from '../vault.ts';

export interface DamagedObject {
  /** The object's key. */
  readonly key: string;
  /** VAULT_DAMAGED or VAULT_TOO_NEW. */
  readonly error: AgentError;
}

/** Number of parallel requests. */
const atOnce = 16;

/**
 * Yields the documents of the keys, in order. Objects that are deleted in the meantime are left out. Throws errors of
 * the store, but not for damaged documents.
 */
export async function readDocuments<T>(
  vault: Vault,
  keys: readonly string[],
  parse: (key: string, document: unknown) => T,
  options: StoreOptions = {},
): Promise<{ found: T[]; damaged: DamagedObject[] }> {
  const found: T[] = [];
  const damaged: DamagedObject[] = [];
  for (let at = 0; at < keys.length; at += atOnce) {
    options.signal?.throwIfAborted();
    const reads = keys.slice(at, at + atOnce).map(async (key) => {
      const sealed = await vault.store.get(key, options).catch(missingAsUndefined);
      if (sealed === undefined) return;
      try {
        return { value: parse(key, openDocument(vault.secrets, key, sealed)) };
      } catch (error) {
        if (!isDamage(error)) throw error;
        return { key, error };
      }
    });
    for (const result of await Promise.all(reads)) {
      if (result === undefined) continue;
      if ('value' in result) found.push(result.value);
      else damaged.push(result);
    }
  }
  return { found, damaged };
}

/** Returns the keys under `prefix` that match. */
export async function listKeys(
  vault: Vault,
  prefix: string,
  pattern: RegExp,
  options: StoreOptions = {},
): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of vault.store.list(prefix, options)) if (pattern.test(key)) keys.push(key);
  return keys.sort();
}

export function missingAsUndefined(thrown: unknown): undefined {
  if (thrown instanceof AgentError && thrown.code === 'VAULT_OBJECT_MISSING') return undefined;
  throw thrown;
}

function isDamage(thrown: unknown): thrown is AgentError {
  return thrown instanceof AgentError && (thrown.code === 'VAULT_DAMAGED' || thrown.code === 'VAULT_TOO_NEW');
}
