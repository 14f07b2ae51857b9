/**
 * What is sealed in a pack: AES-256-GCM under the pack's own key, the nonce being the place in the pack, the additional
 * data the header (docs/formats/vault.md, "Packs"); and the encoding of parts. For one thread.
 */
import { type KeyObject, createCipheriv, createDecipheriv, createSecretKey } from 'node:crypto';
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

const cipherName = 'aes-256-gcm';

/** Seals and opens what is in one pack. */
export class PackCipher {
  readonly id: string;
  readonly kind: PackKind;
  readonly header: Buffer;
  readonly #key: KeyObject;
  readonly #nonce = Buffer.alloc(12);

  constructor(secrets: Pick<Secrets, 'packKey'>, id: string, kind: PackKind) {
    this.id = id;
    this.kind = kind;
    this.header = encodeHeader(id, kind);
    this.#key = createSecretKey(secrets.packKey(id));
  }

  /** Writes ciphertext and tag, `tagLength` bytes more than `data`, to the beginning of `into`. */
  sealInto(into: Buffer, offset: number, data: Uint8Array, what: 'part' | 'directory'): void {
    const cipher = createCipheriv(cipherName, this.#key, this.#nonceOf(offset, what));
    cipher.setAAD(this.header);
    cipher.update(data).copy(into);
    cipher.final();
    cipher.getAuthTag().copy(into, data.length);
  }

  /** The plaintext of ciphertext and tag that lie at `offset` of the pack. Throws VAULT_DAMAGED. */
  open(offset: number, sealed: Uint8Array, what: 'part' | 'directory'): Buffer {
    const end = sealed.length - tagLength;
    if (end < 0) throw damaged(this.id, `has ${sealed.length} bytes of a ${what} at ${offset}`);
    const decipher = createDecipheriv(cipherName, this.#key, this.#nonceOf(offset, what));
    decipher.setAAD(this.header);
    decipher.setAuthTag(sealed.subarray(end));
    const plain = decipher.update(sealed.subarray(0, end));
    try {
      decipher.final();
    } catch (error) {
      throw damaged(this.id, `has a ${what} at ${offset} that was altered`, error);
    }
    return plain;
  }

  /** The bytes that a part stands for; its name is not looked at. Throws VAULT_DAMAGED. */
  openPart(place: PartPlace, sealed: Uint8Array): Buffer {
    const expected = place.encodedLength + tagLength;
    if (sealed.length !== expected)
      throw damaged(this.id, `has ${sealed.length} of the ${expected} bytes of the part at ${place.offset}`);
    return decode(this.id, place, this.open(place.offset, sealed, 'part'));
  }

  #nonceOf(offset: number, what: 'part' | 'directory'): Buffer {
    this.#nonce.writeUInt32LE(offset % 0x1_0000_0000, 0);
    this.#nonce.writeUInt32LE(Math.floor(offset / 0x1_0000_0000), 4);
    this.#nonce[11] = what === 'directory' ? 1 : 0;
    return this.#nonce;
  }
}

/** zstd's own default. */
export const defaultLevel = 3;

/** The bytes as they are stored. zstd gives up soon on what cannot be compressed. Valid until the next call. */
export function encode(
  compressor: ZstdCompressor,
  plain: Uint8Array,
): { readonly encoding: Encoding; readonly data: Uint8Array } {
  const data = compressor.compress(plain);
  return data === undefined ? { encoding: 0, data: plain } : { encoding: 1, data };
}

let decompressor: ZstdDecompressor | undefined;

function decode(id: string, { offset, plainLength, encoding }: PartPlace, data: Buffer): Buffer {
  if (encoding === 0) return data;
  if (plainLength > maximumPlainLength)
    throw damaged(id, `has a part at ${offset} for ${plainLength} bytes; ${maximumPlainLength} is the most`);
  decompressor ??= new ZstdDecompressor();
  const plain = decompressor.decompress(data, plainLength);
  if (plain === undefined)
    throw damaged(id, `has a part at ${offset} that is no zstd frame of ${plainLength} bytes`);
  return plain;
}
