/**
 * Finds and opens the vault that the user names: its settings, credentials and key. `vault:default` is the vault in
 * the state directory, unless the configuration names another one.
 *
 * The key is the given one, else the one in the settings, else `vault-keys/ID.key` in the state directory, where
 * `dattocli vault init` puts it.
 */
import { createHash } from 'node:crypto';
import { mkdir, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError, errnoCode, systemHints } from '../base/errors.ts';
import { readTrusted } from '../base/trusted-file.ts';
import { readConfig } from './config.ts';
import type { KeyMaterial } from './key-material.ts';
import { defaultLevel } from './packs/sealing.ts';
import { expectSameVault, rememberVault } from './pins.ts';
import type { NamedVaults, VaultSettings } from '../api/vault-settings.ts';
import {
  type StoreLocation,
  type VaultLocation,
  formatVaultLocation,
  parseVaultLocation,
} from './store/location.ts';
import type { ObjectStore, StoreOptions } from './store/object-store.ts';
import { type StoreHooks, type StoreSettings, openStore } from './store/open-store.ts';
import { Vault } from './vault.ts';

/** The directories and the configuration in which vaults are found on this machine. */
export interface VaultContext {
  readonly vaults: NamedVaults;
  readonly stateDirectory: string;
}

/** The location of a vault with everything needed to reach it, as plain data. */
export interface VaultPlace {
  readonly location: StoreLocation;
  readonly settings: StoreSettings;
  readonly keyFile: string | undefined;
  readonly passphraseFile: string | undefined;
  /** zstd level, from 1 to 19. */
  readonly level: number;
}

export interface OpenedVault {
  readonly vault: Vault;
  readonly location: StoreLocation;
  readonly settings: StoreSettings;
  readonly level: number;
  /** Path of the vault's index on this machine. Its directory exists. */
  readonly indexPath: string;
}

/** Throws BAD_TARGET if the configuration does not have the name, FILE_ERROR if credentials cannot be read. */
export async function findVault(location: VaultLocation, context: VaultContext): Promise<VaultPlace> {
  if (location.kind !== 'named') return placeOf(location, undefined);
  const named = Object.hasOwn(context.vaults, location.name) ? context.vaults[location.name] : undefined;
  if (named !== undefined) {
    const place = parseVaultLocation(named.location);
    if (place.kind !== 'named') return placeOf(place, named);
  }
  if (location.name === 'default')
    return placeOf({ kind: 'directory', path: join(context.stateDirectory, 'vault') }, undefined);
  const known = Object.keys(context.vaults);
  throw new AgentError('BAD_TARGET', `The configuration has no vault "${location.name}"`, {
    hint:
      known.length === 0
        ? 'name a directory as vault:/path, or add "vaults" to the configuration'
        : `choose one of ${known.join(', ')}`,
  });
}

/** Opens only the store; needs no key. */
export function openPlace(
  place: VaultPlace,
  { create, hooks }: { readonly create?: boolean; readonly hooks?: StoreHooks | undefined } = {},
): Promise<ObjectStore> {
  return openStore(place.location, { ...place.settings, create }, hooks);
}

export interface OpenVaultOptions extends StoreOptions {
  readonly hooks?: StoreHooks | undefined;
  /** ID of a vault to accept here although this machine has only seen other vaults at this location. */
  readonly accept?: string | undefined;
}

/**
 * Throws VAULT_NOT_FOUND, VAULT_EXCHANGED, VAULT_NO_KEY, VAULT_WRONG_KEY, VAULT_TOO_NEW, VAULT_DAMAGED, and errors of
 * the store.
 */
export async function openVault(
  wanted: VaultLocation,
  context: VaultContext,
  given?: KeyMaterial,
  options: OpenVaultOptions = {},
): Promise<OpenedVault> {
  const place = await findVault(wanted, context);
  const store = await openPlace(place, { hooks: options.hooks });
  try {
    const { id } = await readConfig(store, options);
    const seenAt = formatVaultLocation(place.location);
    if (options.accept !== id) await expectSameVault(context.stateDirectory, seenAt, id);
    const key = given ?? (await storedKey(place, id, context)).material;
    const vault = await Vault.open(store, key, options);
    await rememberVault(context.stateDirectory, seenAt, id);
    const { location, settings, level } = place;
    return { vault, location, settings, level, indexPath: await indexPathOf(id, location, context) };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/**
 * The index depends on the vault and its location: a copy of a vault has the same ID but other packs. Two paths to
 * one directory are one location.
 */
async function indexPathOf(
  id: string,
  location: StoreLocation,
  { stateDirectory }: VaultContext,
): Promise<string> {
  const real =
    location.kind === 'directory' ? { ...location, path: await realpath(location.path) } : location;
  const place = createHash('sha256').update(formatVaultLocation(real)).digest('hex').slice(0, 16);
  const directory = join(stateDirectory, 'vaults', id);
  await makeStateDirectory(join(directory, place));
  // Earlier versions had one index for all copies of a vault.
  for (const suffix of ['', '-wal', '-shm', '-refresh', '-replace'])
    await rm(join(directory, `index.sqlite${suffix}`), { force: true, recursive: true });
  return join(directory, place, 'index.sqlite');
}

/** Returns the path of the vault's key file on this machine. The file may not exist. */
export function keyFileOf(vaultId: string, context: Pick<VaultContext, 'stateDirectory'>): string {
  return join(context.stateDirectory, 'vault-keys', `${vaultId}.key`);
}

/** Returns the key that this machine has for the vault, and its file. Throws VAULT_NO_KEY, FILE_ERROR. */
export async function storedKey(
  place: VaultPlace,
  id: string,
  context: Pick<VaultContext, 'stateDirectory'>,
): Promise<{ readonly material: KeyMaterial; readonly path: string }> {
  const { keyFile, passphraseFile } = place;
  if (keyFile !== undefined)
    return { material: { kind: 'file', text: await readSecret(keyFile) }, path: keyFile };
  if (passphraseFile !== undefined) {
    const passphrase = await readPassphrase(passphraseFile);
    return { material: { kind: 'passphrase', passphrase }, path: passphraseFile };
  }
  const path = keyFileOf(id, context);
  try {
    return { material: { kind: 'file', text: (await readTrusted(path, 'secret')).toString('utf8') }, path };
  } catch (error) {
    if (error instanceof AgentError) throw error;
    if (errnoCode(error) !== 'ENOENT') throw unreadable(path, error);
    const name = formatVaultLocation(place.location);
    throw new AgentError('VAULT_NO_KEY', `${name} is encrypted, and ${path} has no key for it`, {
      hint:
        'give a key with --key-file, --passphrase-file or --recovery-code, or name it in the ' +
        'configuration',
    });
  }
}

async function placeOf(location: StoreLocation, settings: VaultSettings | undefined): Promise<VaultPlace> {
  const credentials =
    settings?.credentials_file === undefined ? undefined : await readCredentials(settings.credentials_file);
  return {
    location,
    settings: {
      s3: {
        ...credentials,
        ...(settings?.region === undefined ? {} : { region: settings.region }),
        ...(settings?.ca_file === undefined ? {} : { caFile: settings.ca_file }),
        ...(settings?.insecure === true ? { allowPlainHttp: true } : {}),
      },
      ...(settings?.rate === undefined ? {} : { uploadRate: settings.rate, downloadRate: settings.rate }),
    },
    keyFile: settings?.key_file,
    passphraseFile: settings?.passphrase_file,
    level: settings?.compression ?? defaultLevel,
  };
}

async function readCredentials(path: string): Promise<{ accessKeyId: string; secretAccessKey: string }> {
  const wrong = (cause?: unknown): AgentError =>
    new AgentError(
      'FILE_ERROR',
      `${path} is not a JSON object with "access_key_id" and "secret_access_key"`,
      {
        cause,
      },
    );
  let value: unknown;
  try {
    value = JSON.parse(await readSecret(path));
  } catch (error) {
    throw error instanceof AgentError ? error : wrong();
  }
  const { access_key_id: id, secret_access_key: secret } = (value ?? {}) as Record<string, unknown>;
  if (typeof id !== 'string' || typeof secret !== 'string') throw wrong();
  return { accessKeyId: id, secretAccessKey: secret };
}

/** Throws FILE_ERROR, UNSAFE_FILE. */
export async function readPassphrase(path: string): Promise<string> {
  return (await readSecret(path)).replace(/\r?\n$/, '');
}

/** Throws FILE_ERROR, UNSAFE_FILE. */
export async function readSecret(path: string): Promise<string> {
  try {
    return (await readTrusted(path, 'secret')).toString('utf8');
  } catch (error) {
    if (error instanceof AgentError) throw error;
    throw unreadable(path, error);
  }
}

/** Returns undefined if the file does not exist. Throws FILE_ERROR, UNSAFE_FILE. */
export async function readSecretIfThere(path: string): Promise<string | undefined> {
  return readSecret(path).catch((error: unknown) => {
    if (error instanceof AgentError && errnoCode(error.cause) === 'ENOENT') return undefined;
    throw error;
  });
}

/** Throws FILE_ERROR. */
async function makeStateDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    const code = errnoCode(error) ?? String(error);
    throw new AgentError('FILE_ERROR', `${path} cannot be made: ${code}`, {
      hint:
        systemHints[code] ??
        'the index of the vault is in the state directory; run as root, or choose another one with ' +
          '--state-dir',
      cause: error,
    });
  }
}

function unreadable(path: string, error: unknown): AgentError {
  return new AgentError('FILE_ERROR', `${path} cannot be read: ${errnoCode(error) ?? String(error)}`, {
    hint: 'check that the file exists and that this user may read it',
    cause: error,
  });
}
