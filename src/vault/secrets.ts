/**
 * The keys of an open vault, derived from its master key (docs/formats/vault.md, "Keys"). The master key itself is
 * not kept; only a key slot gives it.
 */
import { createHmac, hkdfSync } from 'node:crypto';

/** The keys in a form for another thread of this process. Never write them anywhere. */
export interface SecretsMessage {
  readonly vaultId: string;
  /** Hexadecimal. */
  readonly keys: Readonly<Record<KeyName, string>>;
}

const infos = {
  chunkNames: 'dattod vault 1 chunk names',
  pageNames: 'dattod vault 1 page names',
  documents: 'dattod vault 1 documents',
  packs: 'dattod vault 1 packs',
  config: 'dattod vault 1 vault.json',
} as const;

type KeyName = keyof typeof infos;

/** Length of every key here, in bytes. */
export const keyLength = 32;

export class Secrets {
  /** 32 hexadecimal digits. */
  readonly vaultId: string;
  /** BLAKE3 key, for `Namer`. */
  readonly chunkNameKey: Buffer;
  readonly pageNameKey: Buffer;
  /** AES-256-GCM key of sealed documents. */
  readonly documentKey: Buffer;
  readonly #packs: Buffer;
  readonly #config: Buffer;

  private constructor(vaultId: string, keys: Readonly<Record<KeyName, Buffer>>) {
    this.vaultId = vaultId;
    this.chunkNameKey = keys.chunkNames;
    this.pageNameKey = keys.pageNames;
    this.documentKey = keys.documents;
    this.#packs = keys.packs;
    this.#config = keys.config;
  }

  /** `master`: 32 bytes; `vaultId`: 32 hexadecimal digits. */
  static from(master: Buffer, vaultId: string): Secrets {
    const derive = (name: KeyName): Buffer => hkdf(master, Buffer.from(vaultId, 'hex'), infos[name]);
    return new Secrets(vaultId, {
      chunkNames: derive('chunkNames'),
      pageNames: derive('pageNames'),
      documents: derive('documents'),
      packs: derive('packs'),
      config: derive('config'),
    });
  }

  static fromMessage({ vaultId, keys }: SecretsMessage): Secrets {
    const read = (name: KeyName): Buffer => Buffer.from(keys[name], 'hex');
    return new Secrets(vaultId, {
      chunkNames: read('chunkNames'),
      pageNames: read('pageNames'),
      documents: read('documents'),
      packs: read('packs'),
      config: read('config'),
    });
  }

  toMessage(): SecretsMessage {
    return {
      vaultId: this.vaultId,
      keys: {
        chunkNames: this.chunkNameKey.toString('hex'),
        pageNames: this.pageNameKey.toString('hex'),
        documents: this.documentKey.toString('hex'),
        packs: this.#packs.toString('hex'),
        config: this.#config.toString('hex'),
      },
    };
  }

  /** AES-256-GCM key of the pack with this id (32 hexadecimal digits). */
  packKey(packId: string): Buffer {
    return hkdf(this.#packs, Buffer.from(packId, 'hex'), 'dattod vault 1 pack');
  }

  /** HMAC-SHA256 that authenticates `vault.json`. */
  configMac(text: string): Buffer {
    return createHmac('sha256', this.#config).update(text, 'utf8').digest();
  }
}

/** HKDF-SHA256, 32 bytes. */
export function hkdf(key: Uint8Array, salt: Uint8Array, info: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, info, keyLength));
}
