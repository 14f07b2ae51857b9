/**
 * Names of chunks and pages: 32 bytes of keyed BLAKE3 over their content. In one vault, equal content has one name.
 * Without the key, a name reveals nothing about the content (docs/formats/vault.md, "Words").
 */
import { Blake3Hasher } from '@napi-rs/blake-hash';

/** 32 bytes. */
export type Name = Buffer;

/** Length of a name in bytes. */
export const nameLength = 32;

/** The name of "all zeros", which is never stored. Read-only. */
export const zeroName: Name = Buffer.alloc(nameLength);

export function isZeroName(name: Uint8Array): boolean {
  return name[0] === 0 && name[1] === 0 && zeroName.equals(name);
}

/** Computes names with one reused hasher. Use it in one thread only. */
export class Namer {
  readonly #hasher: Blake3Hasher;

  /** `key` has 32 bytes: `Secrets.chunkNameKey` or `Secrets.pageNameKey`. */
  constructor(key: Uint8Array) {
    this.#hasher = Blake3Hasher.newKeyed(asBuffer(key));
  }

  /** Returns the name of these bytes in a new buffer. They must not all be zero. */
  name(data: Uint8Array): Name {
    this.#hasher.reset();
    this.#hasher.update(asBuffer(data));
    return this.#hasher.digestBuffer();
  }
}

function asBuffer(data: Uint8Array): Buffer {
  return Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
