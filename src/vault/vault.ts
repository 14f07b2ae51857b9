/**
 * An open vault: its store, its parameters and its keys (docs/formats/vault.md, "vault.json" and "Keys"). All other
 * vault code works on it.
 */
import { timingSafeEqual } from 'node:crypto';
import { KiB, MiB } from '../base/bytes.ts';
import { AgentError } from '../base/errors.ts';
import { freshBytes } from '../base/random.ts';
import { formatConfig, readConfig, type VaultConfig } from './config.ts';
import { newId } from './ids.ts';
import type { KeyMaterial } from './key-material.ts';
import { type KeySlot, type ScryptCost, formatSlot, makeSlot } from './key-slots.ts';
import { Secrets } from './secrets.ts';
import type { ObjectStore } from './store/object-store.ts';
import { unlock } from './unlock.ts';

export interface InitOptions {
  /** At least one key. */
  readonly keys: readonly { readonly material: KeyMaterial; readonly label?: string }[];
  /** Give `newId()` if the ID must be known before. Default: a new ID. */
  readonly id?: string | undefined;
  /** In bytes: a power of two from 4 KiB to 1 MiB. Default: 64 KiB. */
  readonly chunkSize?: number | undefined;
  /** In bytes: from 1 MiB to 64 MiB. Default: 16 MiB. */
  readonly packSize?: number | undefined;
  /** Lower than the default only in tests. */
  readonly cost?: ScryptCost | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface OpenOptions {
  readonly signal?: AbortSignal | undefined;
}

export class Vault {
  readonly store: ObjectStore;
  readonly config: VaultConfig;
  readonly secrets: Secrets;

  private constructor(store: ObjectStore, config: VaultConfig, secrets: Secrets) {
    this.store = store;
    this.config = config;
    this.secrets = secrets;
  }

  /**
   * Creates a vault in an empty place. Throws BAD_USAGE, VAULT_EXISTS and errors of the store. If interrupted, there
   * is either a complete vault or no vault. Key slots without a vault may remain and are ignored.
   */
  static async init(store: ObjectStore, options: InitOptions): Promise<Vault> {
    const { signal, id = newId() } = options;
    const master = freshBytes(32);
    const secrets = Secrets.from(master, id);
    const created = new Date();
    const config = formatConfig(
      secrets,
      created,
      options.chunkSize ?? 64 * KiB,
      options.packSize ?? 16 * MiB,
    );
    if (options.keys.length === 0)
      throw new AgentError('VAULT_NO_KEY', 'Without a key, a vault could never be read', {
        hint: 'add a passphrase or a key file',
      });
    const slots: KeySlot[] = [];
    for (const { material, label } of options.keys)
      slots.push(await makeSlot(master, id, material, { label, cost: options.cost, created }));
    await refuseRemains(store, signal);
    for (const slot of slots)
      await store.put(`keys/${slot.id}.json`, formatSlot(slot), { signal, isNew: true });
    await store.put('vault.json', config, { signal, isNew: true }).catch((error: unknown) => {
      if (!(error instanceof AgentError && error.code === 'VAULT_OBJECT_EXISTS')) throw error;
      throw madeMeanwhile(store, error);
    });
    // Some stores allow two simultaneous puts of one object, so read which one was stored.
    const stored = await readConfig(store, { signal });
    if (stored.id !== id) throw madeMeanwhile(store);
    return Vault.#withSecrets(store, stored, secrets);
  }

  /**
   * Opens a vault with key material, or with the secrets that another thread has derived from it. Throws
   * VAULT_NOT_FOUND, VAULT_TOO_NEW, VAULT_NO_KEY, VAULT_WRONG_KEY, VAULT_DAMAGED, BAD_USAGE (invalid material).
   */
  static async open(
    store: ObjectStore,
    key: KeyMaterial | Secrets,
    options: OpenOptions = {},
  ): Promise<Vault> {
    const config = await readConfig(store, options);
    if (key instanceof Secrets) return Vault.#withSecrets(store, config, key);
    const { master } = await unlock(store, config.id, key, options);
    return Vault.#withSecrets(store, config, Secrets.from(master, config.id));
  }

  static #withSecrets(store: ObjectStore, config: VaultConfig, secrets: Secrets): Vault {
    if (secrets.vaultId !== config.id)
      throw new AgentError(
        'VAULT_WRONG_KEY',
        `${store.name} is the vault ${config.id}; the secrets are those of ${secrets.vaultId}`,
      );
    if (!timingSafeEqual(config.mac, secrets.configMac(config.authenticated)))
      throw new AgentError(
        'VAULT_DAMAGED',
        `vault.json of ${store.name} was altered: its MAC does not match`,
        {
          hint: 'put back the copy of vault.json that belongs to this vault',
        },
      );
    return new Vault(store, config, secrets);
  }

  /** The name of the store, for messages. */
  get name(): string {
    return this.store.name;
  }

  /** 32 hexadecimal digits. */
  get id(): string {
    return this.config.id;
  }

  /** In bytes. */
  get chunkSize(): number {
    return this.config.chunkSize;
  }

  /** In bytes; a pack is closed when it reaches this size. */
  get packSize(): number {
    return this.config.packSize;
  }
}

function madeMeanwhile(store: ObjectStore, cause?: unknown): AgentError {
  return new AgentError(
    'VAULT_EXISTS',
    `${store.name}: another process created a vault there at the same time`,
    {
      cause,
    },
  );
}

async function refuseRemains(store: ObjectStore, signal: AbortSignal | undefined): Promise<void> {
  if ((await store.head('vault.json', { signal })) !== undefined)
    throw new AgentError('VAULT_EXISTS', `${store.name} already is a vault`);
  for (const prefix of ['packs/', 'points/'])
    for await (const { key } of store.list(prefix, { signal }))
      throw new AgentError(
        'VAULT_EXISTS',
        `${store.name} holds ${key} of a vault whose vault.json is missing`,
        {
          hint: 'put its vault.json back, or choose another place',
        },
      );
}
