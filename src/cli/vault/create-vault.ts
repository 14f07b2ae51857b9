/**
 * Creates a vault and its keys. The key file is durable before the vault exists, so a vault always has a key. The key
 * file is removed if creating the vault fails. The recovery code is only printed, so the vault is removed if printing
 * fails.
 */
import { rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { AgentError, toAgentError } from '../../base/errors.ts';
import { readConfig } from '../../vault/config.ts';
import { newId } from '../../vault/ids.ts';
import { makeKeyFile } from '../../vault/key-file.ts';
import type { KeySlot } from '../../vault/key-slots.ts';
import { type KeyMaterial, keyFileBytes, newKeyFileText, newRecoveryCode } from '../../vault/key-material.ts';
import {
  type VaultContext,
  type VaultPlace,
  keyFileOf,
  openPlace,
  readSecretIfThere,
} from '../../vault/opening.ts';
import { rememberVault } from '../../vault/pins.ts';
import { type StoreLocation, formatVaultLocation } from '../../vault/store/location.ts';
import type { ObjectStore } from '../../vault/store/object-store.ts';
import type { StoreHooks } from '../../vault/store/open-store.ts';
import { readSlots } from '../../vault/unlock.ts';
import { Vault } from '../../vault/vault.ts';
import type { InitDocument } from '../../api/vault/output/keys.ts';
import { keyDocument } from './documents.ts';

export interface CreateVaultOptions {
  /** Path of the key file; false for none. Undefined: the default path, if the vault needs one. */
  readonly keyFile?: string | false;
  readonly recoveryCode: boolean;
  /** In bytes. */
  readonly chunkSize?: number;
  readonly packSize?: number;
  readonly passphrase: string | undefined;
  readonly signal: AbortSignal;
  readonly hooks: StoreHooks;
  /** Prints the result. Throws FILE_ERROR if that fails. */
  readonly deliver: (document: InitDocument) => void;
}

export async function createVault(
  place: VaultPlace,
  context: VaultContext,
  options: CreateVaultOptions,
): Promise<void> {
  const { passphrase, chunkSize, packSize, signal, hooks, deliver } = options;
  const id = newId();
  const store = await openPlace(place, { create: true, hooks });
  let made: string | undefined;
  try {
    const keys: { material: KeyMaterial; label?: string }[] = [];
    const keyFile = keyFilePath(options, place, id, context);
    if (keyFile !== undefined) {
      const there = await readSecretIfThere(keyFile);
      const text = there ?? newKeyFileText();
      keyFileBytes(text);
      if (there === undefined) {
        await makeKeyFile(keyFile, text);
        made = keyFile;
      }
      keys.push({ material: { kind: 'file', text }, label: hostname() });
    }
    if (passphrase !== undefined) keys.push({ material: { kind: 'passphrase', passphrase } });
    const code = options.recoveryCode ? newRecoveryCode() : undefined;
    if (code !== undefined) keys.push({ material: { kind: 'recovery', code } });
    const { config } = await Vault.init(store, { id, keys, chunkSize, packSize, signal });
    await rememberVault(context.stateDirectory, formatVaultLocation(place.location), id);
    const { slots } = await readSlots(store, { signal });
    const document: InitDocument = {
      location: formatVaultLocation(place.location),
      id,
      created: config.created,
      chunk_size: config.chunkSize,
      pack_size: config.packSize,
      key_file: keyFile ?? null,
      recovery_code: code ?? null,
      keys: slots.map(keyDocument),
    };
    try {
      deliver(document);
    } catch (error) {
      throw await takenBack(store, slots, document, toAgentError(error));
    }
  } catch (error) {
    if (made !== undefined && (await isAbsent(store, id))) await rm(made, { force: true });
    throw withPlace(error, place.location);
  } finally {
    await store.close();
  }
}

/** Removes a new vault whose result could not be printed. Returns the error to throw. */
async function takenBack(
  store: ObjectStore,
  slots: readonly KeySlot[],
  { location, recovery_code: code }: InitDocument,
  why: AgentError,
): Promise<AgentError> {
  try {
    for (const { id } of slots) await store.delete(`keys/${id}.json`);
    await store.delete('vault.json');
    return new AgentError(why.code, `${why.message}; no vault was created`, {
      ...(why.hint === undefined ? {} : { hint: why.hint }),
      cause: why,
    });
  } catch (error) {
    const lost = code === null ? '' : ', and its recovery code is lost';
    return new AgentError(
      why.code,
      `${why.message}; the vault ${location} was created and cannot be removed (${toAgentError(error).message})${lost}`,
      {
        hint: `run dattocli vault key list --vault ${location}, remove the recovery code's key and add another one (vault key add --new-recovery-code)`,
        cause: why,
      },
    );
  }
}

/** Returns the key file for the vault; undefined if it gets none. Throws BAD_USAGE. */
function keyFilePath(
  { keyFile, passphrase }: CreateVaultOptions,
  place: VaultPlace,
  id: string,
  context: VaultContext,
): string | undefined {
  if (keyFile === false && passphrase === undefined)
    throw new AgentError('BAD_USAGE', 'Without a key file the vault needs a passphrase', {
      hint: 'add --passphrase or --passphrase-file',
    });
  if (keyFile === false) return undefined;
  if (keyFile !== undefined || place.keyFile !== undefined) return keyFile ?? place.keyFile;
  // If the configuration names a passphrase file, the passphrase is the key.
  return place.passphraseFile === undefined ? keyFileOf(id, context) : undefined;
}

/** Returns true if the vault certainly does not exist. A put that failed or was interrupted may have created it. */
async function isAbsent(store: ObjectStore, id: string): Promise<boolean> {
  try {
    return (await readConfig(store)).id !== id;
  } catch (error) {
    return error instanceof AgentError && error.code === 'VAULT_NOT_FOUND';
  }
}

/** Adds a hint with the location to VAULT_EXISTS. */
function withPlace(error: unknown, location: StoreLocation): unknown {
  if (!(error instanceof AgentError) || error.code !== 'VAULT_EXISTS' || error.hint !== undefined)
    return error;
  return new AgentError(error.code, error.message, {
    hint: `nothing was changed; run dattocli vault info --vault ${formatVaultLocation(location)} to see the vault`,
    cause: error,
  });
}
