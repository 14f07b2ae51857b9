/**
 * `vault.json`: version, ID and parameters of a vault. It is in clear text, and is authenticated once a key is known.
 */
import { chunkSizes, isVault, parameters } from '../api/vault/parameters.ts';
import { versioned } from '../api/vault/stored.ts';
import { KiB, MiB } from '../base/bytes.ts';
import { AgentError } from '../base/errors.ts';
import { parseJson } from './key-slots.ts';
import { readStored } from './stored.ts';
import type { Secrets } from './secrets.ts';
import type { ObjectStore, StoreOptions } from './store/object-store.ts';

export interface VaultConfig {
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** ISO 8601. */
  readonly created: string;
  /** In bytes. */
  readonly chunkSize: number;
  readonly packSize: number;
  readonly mac: Buffer;
  /** The text that `mac` authenticates. */
  readonly authenticated: string;
}

const format = 'dattod vault';
const version = 1;
/**
 * Limit for `vault.json` and key slots, which are much smaller. Another party may have put an object of any size
 * there.
 */
export const longestClearObject = 64 * KiB;

/** Returns the content of `vault.json`. Throws BAD_USAGE if a size is out of range. */
export function formatConfig(secrets: Secrets, created: Date, chunkSize: number, packSize: number): Buffer {
  if (!isChunkSize(chunkSize))
    throw new AgentError(
      'BAD_USAGE',
      `The chunk size ${chunkSize} must be a power of two from 4 KiB to 1 MiB`,
    );
  if (!isPackSize(packSize))
    throw new AgentError('BAD_USAGE', `The pack size ${packSize} must be from 1 MiB to 64 MiB`);
  const id = secrets.vaultId;
  const time = created.toISOString();
  const mac = secrets.configMac(authenticatedText(id, time, chunkSize, packSize)).toString('hex');
  const document = { format, version, id, created: time, chunk_size: chunkSize, pack_size: packSize, mac };
  return Buffer.from(`${JSON.stringify(document, null, 2)}\n`, 'utf8');
}

/** Throws VAULT_DAMAGED, VAULT_TOO_NEW. Messages begin with `where`. */
function parseConfig(text: Uint8Array, where: string): VaultConfig {
  const document = parseJson(text, where);
  readStored(isVault, document, where);
  const { version: found } = readStored(versioned, document, where);
  if (found !== version)
    throw new AgentError('VAULT_TOO_NEW', `${where} has version ${found}; this program knows ${version}`, {
      hint: 'use a newer version of this program',
    });
  const read = readStored(parameters, document, where);
  const { id, created, chunk_size: chunkSize, pack_size: packSize } = read;
  const mac = Buffer.from(read.mac, 'hex');
  const authenticated = authenticatedText(id, created, chunkSize, packSize);
  return { id, created, chunkSize, packSize, mac, authenticated };
}

/**
 * Reads the parameters of the vault in the store. They are not verified until a key is known. Throws VAULT_NOT_FOUND,
 * VAULT_TOO_NEW, VAULT_DAMAGED and errors of the store.
 */
export async function readConfig(store: ObjectStore, options: StoreOptions = {}): Promise<VaultConfig> {
  let text: Buffer;
  try {
    text = await store.get('vault.json', { ...options, length: longestClearObject });
  } catch (cause) {
    if (cause instanceof AgentError && cause.code === 'VAULT_OBJECT_MISSING')
      throw new AgentError('VAULT_NOT_FOUND', `There is no vault in ${store.name}: it has no vault.json`, {
        hint: 'run dattocli vault init to create one',
        cause,
      });
    throw cause;
  }
  return parseConfig(text, `vault.json of ${store.name}`);
}

function authenticatedText(id: string, created: string, chunkSize: number, packSize: number): string {
  return `1\n${id}\n${created}\n${chunkSize}\n${packSize}\n`;
}

function isChunkSize(size: number): boolean {
  return chunkSizes.includes(size);
}

function isPackSize(size: number): boolean {
  return Number.isInteger(size) && size >= MiB && size <= 64 * MiB;
}
