/**
 * Sealed documents: points, checks, writers, condemned lists and locks (docs/formats/vault.md, "Keys"). JSON,
 * compressed with zstd, sealed with AES-256-GCM; the object's key is authenticated with it, so that nobody can pass off
 * one object as another.
 *
 *     nonce 12 bytes | ciphertext | tag 16 bytes
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { MiB, formatBytes } from '../base/bytes.ts';
import { AgentError } from '../base/errors.ts';
import { freshBytes } from '../base/random.ts';

const nonceLength = 12;
const tagLength = 16;
/** Of JSON. Only who has the key can make a document at all; this is against mistakes. */
const longest = 64 * MiB;

/** Who seals: `Secrets`. */
export interface DocumentKey {
  readonly documentKey: Buffer;
}

/** `objectKey`: the key under which the document is put, such as `points/…`. */
export function sealDocument(secrets: DocumentKey, objectKey: string, document: unknown): Buffer {
  const text = Buffer.from(JSON.stringify(document), 'utf8');
  if (text.length > longest)
    throw new RangeError(
      `${objectKey} would have ${formatBytes(text.length)} of at most ${formatBytes(longest)}`,
    );
  return seal(
    secrets.documentKey,
    zstdCompressSync(text, { params: { [constants.ZSTD_c_compressionLevel]: 6 } }),
    objectKey,
  );
}

/** Throws VAULT_DAMAGED for anything that was not sealed for this object of this vault. */
export function openDocument(secrets: DocumentKey, objectKey: string, sealed: Uint8Array): unknown {
  const compressed = open(secrets.documentKey, sealed, objectKey);
  if (compressed === undefined)
    throw new AgentError(
      'VAULT_DAMAGED',
      `${objectKey} (${sealed.length} bytes) was altered, cut short or taken from another place`,
    );
  try {
    return JSON.parse(zstdDecompressSync(compressed, { maxOutputLength: longest }).toString('utf8'));
  } catch (cause) {
    throw new AgentError('VAULT_DAMAGED', `${objectKey} is whole, but holds no document`, { cause });
  }
}

/** Nonce, ciphertext and tag. `context` is authenticated, and not contained. */
export function seal(key: Uint8Array, plain: Uint8Array, context: string): Buffer {
  // Where random numbers repeat themselves (a memory snapshot), what is sealed makes the nonce another one.
  const nonce = freshBytes(nonceLength, Buffer.from(context, 'utf8'), plain);
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: tagLength });
  cipher.setAAD(Buffer.from(context, 'utf8'));
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** The inverse of `seal`; undefined where key, context or a single bit differ. */
export function open(key: Uint8Array, sealed: Uint8Array, context: string): Buffer | undefined {
  const end = sealed.length - tagLength;
  if (end < nonceLength) return undefined;
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, nonceLength), {
    authTagLength: tagLength,
  });
  decipher.setAAD(Buffer.from(context, 'utf8'));
  decipher.setAuthTag(sealed.subarray(end));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(nonceLength, end)), decipher.final()]);
  } catch {
    return undefined;
  }
}
