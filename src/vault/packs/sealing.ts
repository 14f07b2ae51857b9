/**
 * What is sealed in a pack: AES-256-GCM under the pack's own key, the nonce being the place in the pack, the additional
 * data the header (docs/formats/vault.md, "Packs"); and the encoding of parts. For one thread.
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

/** Seals and opens what is in one pack. */
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

  /** Writes ciphertext and tag, `tagLength` bytes more than `data`, to the beginning of `into`. */
  sealInto(into: Buffer, offset: number, data: Uint8Array, what: Sealed): void {
    this.#cipher.seal(this.#nonceOf(offset, what), this.header, data, into);
  }

  /** The plaintext of the directory, ciphertext and tag of which lie at `offset` of the pack. Throws VAULT_DAMAGED. */
  openDirectory(offset: number, sealed: Uint8Array): Buffer {
    const plain = Buffer.alloc(Math.max(0, sealed.length - tagLength));
    this.#open(offset, sealed, 'directory', plain);
    return plain;
  }

  /** The bytes that a part stands for, in a new buffer; its name is not looked at. Throws VAULT_DAMAGED. */
  openPart(place: PartPlace, sealed: Uint8Array): Buffer {
    const { offset, encodedLength, plainLength, encoding } = place;
    const expected = encodedLength + tagLength;
    if (sealed.length !== expected)
      throw damaged(this.id, `has ${sealed.length} of the ${expected} bytes of the part at ${offset}`);
    if (plainLength > maximumPlainLength || encodedLength > plainLength)
      throw damaged(
        this.id,
        `has a part at ${offset} of ${encodedLength} bytes for ${plainLength}; ${maximumPlainLength} is the most`,
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
      throw damaged(this.id, `has a part at ${offset} that is no zstd frame of ${plainLength} bytes`);
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

/** What one thread uses again and again, made when it is first needed. */
let encoded: Buffer | undefined;
let decompressor: ZstdDecompressor | undefined;

/**
 * On pieces of 64 KiB level 3, zstd's own default, saves 1 to 7 % of the room that 1 takes, for 1.2 to 1.5 times the time
 * (Debian's /usr/lib, /usr/share and dpkg's database, and sources).
 */
export const defaultLevel = 1;

/** The bytes as they are stored. zstd gives up soon on what cannot be compressed. Valid until the next call. */
export function encode(
  compressor: ZstdCompressor,
  plain: Uint8Array,
): { readonly encoding: Encoding; readonly data: Uint8Array } {
  const data = compressor.compress(plain);
  return data === undefined ? { encoding: 0, data: plain } : { encoding: 1, data };
}
