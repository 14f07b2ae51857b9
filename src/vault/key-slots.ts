/**
 * Key slots: the master key of a vault, sealed with a passphrase, a key file or a recovery code
 * (docs/formats/vault.md, "Keys"). A slot is in clear text and not authenticated, so its fields are not trusted:
 * parameters that need much memory are refused before use.
 */
import { scrypt } from 'node:crypto';
import { longestLabel, passphraseSlot, randomKeySlot, slotKind } from '../api/vault/key-slot.ts';
import { formatted } from '../api/vault/stored.ts';
import { AgentError } from '../base/errors.ts';
import { freshBytes } from '../base/random.ts';
import { newId } from './ids.ts';
import { keyFileBytes, passphraseBytes, recoveryBytes } from './key-material.ts';
import type { KeyMaterial } from './key-material.ts';
import { open, seal } from './sealed.ts';
import { hkdf, keyLength } from './secrets.ts';
import { readStored } from './stored.ts';

export type KeyKind = KeyMaterial['kind'];

export interface ScryptCost {
  /** A power of two from 2^10 to 2^20. scrypt needs 1024 * N bytes of memory. */
  readonly N: number;
  /** From 1 to 16. */
  readonly p: number;
}

/** 64 MiB and about 0.4 seconds. Lower only in tests. */
const defaultCost: ScryptCost = { N: 65536, p: 2 };

export interface KeySlot {
  readonly id: string;
  readonly kind: KeyKind;
  readonly label: string;
  /** ISO 8601. */
  readonly created: string;
  readonly kdf: ScryptKdf | HkdfKdf;
  /** Nonce, ciphertext and tag. */
  readonly sealed: Buffer;
}

interface ScryptKdf extends ScryptCost {
  readonly name: 'scrypt';
  readonly r: 8;
  readonly salt: Buffer;
}

interface HkdfKdf {
  readonly name: 'hkdf-sha256';
  readonly salt: Buffer;
}

const saltLength = 32;

export interface SlotOptions {
  readonly label?: string | undefined;
  readonly cost?: ScryptCost | undefined;
  readonly created?: Date | undefined;
}

/** Seals the master key of the vault. Throws BAD_USAGE for invalid key material. */
export async function makeSlot(
  master: Buffer,
  vaultId: string,
  material: KeyMaterial,
  { label = '', cost = defaultCost, created = new Date() }: SlotOptions = {},
): Promise<KeySlot> {
  if (label.length > longestLabel)
    throw new AgentError(
      'BAD_USAGE',
      `The label of a key has ${label.length} characters; at most ${longestLabel} are allowed`,
    );
  const id = newId();
  const salt = freshBytes(saltLength);
  const kdf: KeySlot['kdf'] =
    material.kind === 'passphrase' ? { name: 'scrypt', ...cost, r: 8, salt } : { name: 'hkdf-sha256', salt };
  const sealed = seal(await wrappingKey(kdf, material), master, contextOf(vaultId, id));
  return { id, kind: material.kind, label, created: created.toISOString(), kdf, sealed };
}

/**
 * Returns the master key; undefined if this material does not open this slot of this vault. Throws BAD_USAGE for
 * invalid material.
 */
export async function openSlot(
  slot: KeySlot,
  vaultId: string,
  material: KeyMaterial,
): Promise<Buffer | undefined> {
  if (slot.kind !== material.kind) return undefined;
  const master = open(await wrappingKey(slot.kdf, material), slot.sealed, contextOf(vaultId, slot.id));
  return master?.length === keyLength ? master : undefined;
}

/** Returns the content of `keys/KEY.json`. */
export function formatSlot({ id, kind, label, created, kdf, sealed }: KeySlot): Buffer {
  const { name, salt, ...cost } = kdf;
  const document = {
    format: 1,
    id,
    kind,
    label,
    created,
    kdf: { name, ...cost, salt: salt.toString('hex') },
    sealed: sealed.toString('hex'),
  };
  return Buffer.from(`${JSON.stringify(document, null, 2)}\n`, 'utf8');
}

/** `id` is KEY of the object key; messages begin with `where`. Throws VAULT_DAMAGED, VAULT_TOO_NEW. */
export function parseSlot(id: string, text: Uint8Array, where: string): KeySlot {
  const document = parseJson(text, where);
  const { format } = readStored(formatted, document, where);
  if (format !== 1)
    throw new AgentError('VAULT_TOO_NEW', `${where} has format ${format}; this program knows format 1`);
  const { kind } = readStored(slotKind, document, where);
  const slot = readStored(kind === 'passphrase' ? passphraseSlot : randomKeySlot, document, where);
  if (slot.id !== id)
    throw new AgentError('VAULT_DAMAGED', `${where}: id is ${JSON.stringify(slot.id)}, not ${id}`);
  const { label, created } = slot;
  const kdf = { ...slot.kdf, salt: Buffer.from(slot.kdf.salt, 'hex') };
  return { id, kind, label, created, kdf, sealed: Buffer.from(slot.sealed, 'hex') };
}

export function parseJson(text: Uint8Array, where: string): unknown {
  try {
    return JSON.parse(Buffer.from(text).toString('utf8'));
  } catch (cause) {
    throw new AgentError('VAULT_DAMAGED', `${where} is not JSON`, { cause });
  }
}

function contextOf(vaultId: string, id: string): string {
  return `dattod vault 1 key ${vaultId} ${id}`;
}

async function wrappingKey(kdf: KeySlot['kdf'], material: KeyMaterial): Promise<Buffer> {
  switch (material.kind) {
    case 'passphrase':
      if (kdf.name !== 'scrypt') throw new RangeError(`a passphrase with ${kdf.name}`);
      return scryptKey(passphraseBytes(material.passphrase), kdf);
    case 'file':
      return hkdf(keyFileBytes(material.text), kdf.salt, 'dattod vault 1 key file');
    case 'recovery':
      return hkdf(recoveryBytes(material.code), kdf.salt, 'dattod vault 1 recovery');
  }
}

/** Runs in a thread of the pool. */
function scryptKey(passphrase: Buffer, { N, r, p, salt }: ScryptKdf): Promise<Buffer> {
  // OpenSSL counts N blocks, p blocks and a few more.
  const maxmem = 128 * r * (N + p + 4);
  return new Promise((resolve, reject) => {
    scrypt(passphrase, salt, keyLength, { N, r, p, maxmem }, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}
