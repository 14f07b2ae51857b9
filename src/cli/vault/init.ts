/**
 * `vault init`: creates a vault and its keys. The key file is durable before the vault exists, so a vault always has
 * a key. The key file is removed if creating the vault fails. The recovery code is only printed, so the vault is
 * removed if printing fails.
 */
import type { Command } from 'commander';
import { rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { AgentError, errnoCode, toAgentError } from '../../base/errors.ts';
import { readConfig } from '../../vault/config.ts';
import { newId } from '../../vault/ids.ts';
import { makeKeyFile } from '../../vault/key-file.ts';
import type { KeySlot } from '../../vault/key-slots.ts';
import { type KeyMaterial, keyFileBytes, newKeyFileText, newRecoveryCode } from '../../vault/key-material.ts';
import {
  type VaultContext,
  type VaultPlace,
  findVault,
  keyFileOf,
  openPlace,
  readPassphrase,
  readSecret,
} from '../../vault/opening.ts';
import { rememberVault } from '../../vault/pins.ts';
import { type StoreLocation, formatVaultLocation } from '../../vault/store/location.ts';
import type { ObjectStore } from '../../vault/store/object-store.ts';
import type { StoreHooks } from '../../vault/store/open-store.ts';
import { readSlots } from '../../vault/unlock.ts';
import { Vault } from '../../vault/vault.ts';
import type { Context } from '../context.ts';
import type { Io } from '../io.ts';
import { type InitDocument, keyDocument } from './documents.ts';
import { untilInterrupted } from './interrupt.ts';
import type { VaultValues } from '../vault-options.ts';
import { renderInit } from './render-vault.ts';
import { askNewPassphrase } from './secrets.ts';
import { readWanted } from './session.ts';
import { waitingHooks } from './waiting.ts';

interface Values extends Pick<VaultValues, 'vault' | 'passphrase' | 'passphraseFile'> {
  readonly keyFile?: string | false;
  /** False for --no-recovery-code. */
  readonly recoveryCode: boolean;
  readonly chunkSize?: number;
  readonly packSize?: number;
}

export async function initVault(context: Context, self: Command): Promise<number> {
  const [argument] = self.args;
  const values = self.opts<Values>();
  if (argument !== undefined && values.vault !== undefined)
    throw new AgentError('BAD_USAGE', `Two vaults are given: ${argument} and ${values.vault}`);
  const { location, context: places } = await readWanted(context.io, self, argument, { key: false });
  const place = await findVault(location, places);
  const passphrase = await newPassphrase(values, place, context.io);
  const deliver = (document: InitDocument): void => context.deliver(document, () => renderInit(document));
  await untilInterrupted(context.io, (signal) =>
    make(place, places, { values, passphrase, signal, hooks: waitingHooks(context), deliver }),
  );
  return 0;
}

async function newPassphrase(values: Values, place: VaultPlace, io: Io): Promise<string | undefined> {
  if (values.passphrase === true && values.passphraseFile !== undefined)
    throw new AgentError('BAD_USAGE', 'Give one of --passphrase and --passphrase-file');
  if (values.passphrase === true) return askNewPassphrase(io);
  const path = values.passphraseFile ?? place.passphraseFile;
  return path === undefined ? undefined : readPassphrase(path);
}

interface MakeOptions {
  readonly values: Values;
  readonly passphrase: string | undefined;
  readonly signal: AbortSignal;
  readonly hooks: StoreHooks;
  /** Prints the result. Throws FILE_ERROR if that fails. */
  readonly deliver: (document: InitDocument) => void;
}

async function make(
  place: VaultPlace,
  context: VaultContext,
  { values, passphrase, signal, hooks, deliver }: MakeOptions,
): Promise<void> {
  const id = newId();
  const store = await openPlace(place, { create: true, hooks });
  let made: string | undefined;
  try {
    const keys: { material: KeyMaterial; label?: string }[] = [];
    const keyFile = keyFilePath(values, place, id, context, passphrase);
    if (keyFile !== undefined) {
      const there = await readIfThere(keyFile);
      const text = there ?? newKeyFileText();
      keyFileBytes(text);
      if (there === undefined) {
        await makeKeyFile(keyFile, text);
        made = keyFile;
      }
      keys.push({ material: { kind: 'file', text }, label: hostname() });
    }
    if (passphrase !== undefined) keys.push({ material: { kind: 'passphrase', passphrase } });
    const code = values.recoveryCode ? newRecoveryCode() : undefined;
    if (code !== undefined) keys.push({ material: { kind: 'recovery', code } });
    const { chunkSize, packSize } = values;
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
  { keyFile }: Values,
  place: VaultPlace,
  id: string,
  context: VaultContext,
  passphrase: string | undefined,
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

async function readIfThere(path: string): Promise<string | undefined> {
  return readSecret(path).catch((error: unknown) => {
    if (error instanceof AgentError && errnoCode(error.cause) === 'ENOENT') return undefined;
    throw error;
  });
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
