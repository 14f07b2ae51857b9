/**
 * Names of chunks and pages: 32 bytes of keyed BLAKE3 over their bytes, so that equal bytes of one vault have one name,
 * and nobody without the key can tell what a name stands for (docs/formats/vault.md, "Words").
 */
import { Blake3Hasher } from '@napi-rs/blake-hash';

/** 32 bytes. */
export type Name = Buffer;

/** Bytes of a name. */
export const nameLength = 32;

/** Names "all zeros", which is never stored. Not to be written to. */
export const zeroName: Name = Buffer.alloc(nameLength);

export function isZeroName(name: Uint8Array): boolean {
  return name[0] === 0 && name[1] === 0 && zeroName.equals(name);
}

/** Names with one reused hasher. For one thread. */
export class Namer {
  readonly #hasher: Blake3Hasher;

  /** `key`: 32 bytes, `Secrets.chunkNameKey` or `Secrets.pageNameKey`. */
  constructor(key: Uint8Array) {
    this.#hasher = Blake3Hasher.newKeyed(asBuffer(key));
  }

  /** The name of these bytes, which are not all zero; a new buffer. */
  name(data: Uint8Array): Name {
    this.#hasher.reset();
    this.#hasher.update(asBuffer(data));
    return this.#hasher.digestBuffer();
  }
}

function asBuffer(data: Uint8Array): Buffer {
  return Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
