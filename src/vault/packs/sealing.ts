/**
 * Seals and opens the content of a pack, and encodes parts. It uses AES-256-GCM with the pack's own key, the offset
 * in the pack as nonce and the header as additional data (docs/formats/vault.md, "Packs"). For one thread only.
 */
import { Aes256Gcm } from '../../linux/aes-gcm.ts';
import { type ZstdCompressor, ZstdDecompressor } from '../../linux/zstd.ts';
import type { Secrets } from '../secrets.ts';
import {
  type Encoding,
  type PackKind,
  type PartPlace,
  damaged,
  encodeHeader,
  maximumPlainLength,
  tagLength,
} from './format.ts';

type Sealed = 'part' | 'directory';

/** Seals and opens the parts and the directory of one pack. */
export class PackCipher {
  readonly id: string;
  readonly kind: PackKind;
  readonly header: Buffer;
  readonly #cipher: Aes256Gcm;
  readonly #nonce = Buffer.alloc(12);

  constructor(secrets: Pick<Secrets, 'packKey'>, id: string, kind: PackKind) {
    this.id = id;
    this.kind = kind;
    this.header = encodeHeader(id, kind);
    this.#cipher = new Aes256Gcm(secrets.packKey(id));
  }

  /** Writes ciphertext and tag to the beginning of `into`: `tagLength` bytes more than `data`. */
  sealInto(into: Buffer, offset: number, data: Uint8Array, what: Sealed): void {
    this.#cipher.seal(this.#nonceOf(offset, what), this.header, data, into);
  }

  /**
   * Returns the plaintext of the directory. Its ciphertext and tag are at `offset` of the pack. Throws VAULT_DAMAGED.
   */
  openDirectory(offset: number, sealed: Uint8Array): Buffer {
    const plain = Buffer.alloc(Math.max(0, sealed.length - tagLength));
    this.#open(offset, sealed, 'directory', plain);
    return plain;
  }

  /** Returns the content of a part in a new buffer, without verifying its name. Throws VAULT_DAMAGED. */
  openPart(place: PartPlace, sealed: Uint8Array): Buffer {
    const { offset, encodedLength, plainLength, encoding } = place;
    const expected = encodedLength + tagLength;
    if (sealed.length !== expected)
      throw damaged(this.id, `has ${sealed.length} of the ${expected} bytes of the part at ${offset}`);
    if (plainLength > maximumPlainLength || encodedLength > plainLength)
      throw damaged(
        this.id,
        `has a part at ${offset} of ${encodedLength} bytes for ${plainLength}; at most ${maximumPlainLength} are allowed`,
      );
    if (encoding === 0) {
      const plain = Buffer.allocUnsafeSlow(encodedLength);
      this.#open(offset, sealed, 'part', plain);
      return plain;
    }
    encoded ??= Buffer.allocUnsafeSlow(maximumPlainLength);
    this.#open(offset, sealed, 'part', encoded);
    decompressor ??= new ZstdDecompressor();
    const plain = decompressor.decompress(encoded.subarray(0, encodedLength), plainLength);
    if (plain === undefined)
      throw damaged(this.id, `has a part at ${offset} that is not a zstd frame of ${plainLength} bytes`);
    return plain;
  }

  #open(offset: number, sealed: Uint8Array, what: Sealed, into: Buffer): void {
    if (!this.#cipher.open(this.#nonceOf(offset, what), this.header, sealed, into))
      throw damaged(this.id, `has a ${what} at ${offset} that was altered`);
  }

  #nonceOf(offset: number, what: Sealed): Buffer {
    this.#nonce.writeUInt32LE(offset % 0x1_0000_0000, 0);
    this.#nonce.writeUInt32LE(Math.floor(offset / 0x1_0000_0000), 4);
    this.#nonce[11] = what === 'directory' ? 1 : 0;
    return this.#nonce;
  }
}

/** Reused buffers and contexts of this thread, created when they are first needed. */
let encoded: Buffer | undefined;
let decompressor: ZstdDecompressor | undefined;

/**
 * For pieces of 64 KiB, level 3 (zstd's default) saves 1 to 7 % of the room of level 1 and takes 1.2 to 1.5 times the
 * time. Measured with Debian's /usr/lib, /usr/share, dpkg's database, and sources.
 */
export const defaultLevel = 1;

/** Returns the bytes to store, valid until the next call. zstd gives up early on incompressible data. */
export function encode(
  compressor: ZstdCompressor,
  plain: Uint8Array,
): { readonly encoding: Encoding; readonly data: Uint8Array } {
  const data = compressor.compress(plain);
  return data === undefined ? { encoding: 0, data: plain } : { encoding: 1, data };
}
