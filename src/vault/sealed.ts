/**
 * Sealed documents: points, checks, writers, condemned lists and locks (docs/formats/vault.md, "Keys"). They are
 * JSON, compressed with zstd and sealed with AES-256-GCM. The object key is authenticated too, so one object cannot
 * replace another.
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
/** Limit of the JSON text. Only holders of the key can seal a document, so this only guards against mistakes. */
const longest = 64 * MiB;

/** Seals documents; `Secrets` does. */
export interface DocumentKey {
  readonly documentKey: Buffer;
}

/** `objectKey` is the key of the object that stores the document, such as `points/…`. */
export function sealDocument(secrets: DocumentKey, objectKey: string, document: unknown): Buffer {
  const text = Buffer.from(JSON.stringify(document), 'utf8');
  if (text.length > longest)
    throw new RangeError(
      `${objectKey} would have ${formatBytes(text.length)}; at most ${formatBytes(longest)} are allowed`,
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
      `${objectKey} (${sealed.length} bytes) was altered, truncated or moved from another place`,
    );
  try {
    return JSON.parse(zstdDecompressSync(compressed, { maxOutputLength: longest }).toString('utf8'));
  } catch (cause) {
    throw new AgentError('VAULT_DAMAGED', `${objectKey} is authentic, but holds no document`, { cause });
  }
}

/** Returns nonce, ciphertext and tag. `context` is authenticated, but not contained. */
export function seal(key: Uint8Array, plain: Uint8Array, context: string): Buffer {
  // After a memory snapshot, random numbers may repeat. The content is mixed into the nonce, so it still differs.
  const nonce = freshBytes(nonceLength, Buffer.from(context, 'utf8'), plain);
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: tagLength });
  cipher.setAAD(Buffer.from(context, 'utf8'));
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** The inverse of `seal`. Returns undefined if the key, the context or a single bit differs. */
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
