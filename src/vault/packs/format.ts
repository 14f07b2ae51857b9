/**
 * The unsealed bytes of a pack: header, trailer, and the plaintext of the directory (docs/formats/vault.md, "Packs").
 * Pure. Any mismatch is VAULT_DAMAGED, with the pack and the two numbers.
 */
import { AgentError } from '../../base/errors.ts';
import { crc32c } from '../../base/crc32c.ts';
import { type Name, nameLength } from '../names.ts';

export type PackKind = 'chunks' | 'pages';

/** 0: uncompressed; 1: zstd. */
export type Encoding = 0 | 1;

/** The place of a part in its pack, in bytes. In the pack, a tag of `tagLength` follows the `encodedLength` bytes. */
export interface PartPlace {
  readonly offset: number;
  readonly encodedLength: number;
  readonly plainLength: number;
  readonly encoding: Encoding;
}

export interface PackPart extends PartPlace {
  readonly name: Name;
}

export interface PackDirectory {
  /** 32 hexadecimal digits, like all IDs. */
  readonly id: string;
  readonly kind: PackKind;
  readonly writer: string;
  /** Milliseconds since 1970, by the writer's clock. */
  readonly created: number;
  /** Bytes of the complete pack. */
  readonly size: number;
  /** In the order of their offsets. */
  readonly parts: readonly PackPart[];
}

export const headerLength = 32;
export const trailerLength = 24;
export const tagLength = 16;
/** Bytes before the entries in a directory's plaintext. */
export const directoryHeadLength = 32;
export const directoryEntryLength = 44;
/** A part is never longer than the longest chunk. */
export const maximumPlainLength = 1024 * 1024;

const magic = Buffer.from('DATTPACK', 'latin1');
const endMagic = Buffer.from('DATTPEND', 'latin1');
const kindNumbers: Readonly<Record<PackKind, number>> = { chunks: 1, pages: 2 };

/** Returns the object key of a pack. */
export function packObject(id: string): string {
  return `packs/${id.slice(0, 2)}/${id}`;
}

/** Returns the ID of the pack of an object key; undefined if it is not a pack. */
export function packOfObject(key: string): string | undefined {
  const match = /^packs\/([0-9a-f]{2})\/([0-9a-f]{32})$/.exec(key);
  return match?.[2]?.startsWith(match[1] ?? '') === true ? match[2] : undefined;
}

/** Returns the first 32 bytes of a pack, which are also the additional data of everything sealed in it. */
export function encodeHeader(id: string, kind: PackKind): Buffer {
  const header = Buffer.alloc(headerLength);
  magic.copy(header, 0);
  header.writeUInt32LE(1, 8);
  header.writeUInt32LE(kindNumbers[kind], 12);
  header.write(id, 16, 'hex');
  return header;
}

/** Returns the kind of a pack from its header. Throws VAULT_DAMAGED. */
export function parseHeader(id: string, header: Uint8Array): PackKind {
  const bytes = asBuffer(header);
  if (bytes.length < headerLength)
    throw damaged(id, `has ${bytes.length} bytes, but the header alone has ${headerLength}`);
  if (!bytes.subarray(0, 8).equals(magic)) throw damaged(id, 'does not begin like a pack');
  const version = bytes.readUInt32LE(8);
  if (version !== 1) throw damaged(id, `has version ${version}; this program knows version 1`);
  const number = bytes.readUInt32LE(12);
  const kind = number === 1 ? 'chunks' : number === 2 ? 'pages' : undefined;
  if (kind === undefined) throw damaged(id, `has kind ${number}; this program knows kinds 1 and 2`);
  const own = bytes.toString('hex', 16, 32);
  if (own !== id) throw damaged(id, `has the ID ${own} in its header`);
  return kind;
}

export interface Trailer {
  /** Including its tag. */
  readonly directoryLength: number;
  readonly packLength: number;
}

export function encodeTrailer({ directoryLength, packLength }: Trailer): Buffer {
  const trailer = Buffer.alloc(trailerLength);
  trailer.writeUInt32LE(directoryLength, 0);
  trailer.writeBigUInt64LE(BigInt(packLength), 4);
  trailer.writeUInt32LE(crc32c(trailer.subarray(0, 12)), 12);
  endMagic.copy(trailer, 16);
  return trailer;
}

/** Parses the last 24 bytes of a pack of `size` bytes. */
export function parseTrailer(id: string, size: number, trailer: Uint8Array): Trailer {
  const bytes = asBuffer(trailer);
  const least = headerLength + directoryHeadLength + tagLength + trailerLength;
  if (size < least) throw damaged(id, `has ${size} bytes; the minimum is ${least}`);
  if (bytes.length !== trailerLength)
    throw damaged(id, `has only ${bytes.length} of the ${trailerLength} bytes of the trailer`);
  if (!bytes.subarray(16).equals(endMagic)) throw damaged(id, 'does not end like a pack (truncated?)');
  const [stored, computed] = [bytes.readUInt32LE(12), crc32c(bytes.subarray(0, 12))];
  if (stored !== computed)
    throw damaged(id, `has a trailer with checksum ${hex32(stored)}, but ${hex32(computed)} was computed`);
  const directoryLength = bytes.readUInt32LE(0);
  const packLength = Number(bytes.readBigUInt64LE(4));
  if (packLength !== size) throw damaged(id, `has ${size} bytes, but its trailer says ${packLength}`);
  const [shortest, longest] = [directoryHeadLength + tagLength, size - headerLength - trailerLength];
  if (directoryLength < shortest || directoryLength > longest)
    throw damaged(id, `has a directory of ${directoryLength} bytes; ${shortest} to ${longest} are allowed`);
  return { directoryLength, packLength };
}

/** Builds a directory. Entries are written as parts are added, without an allocation per part. */
export class DirectoryBuilder {
  #bytes = Buffer.alloc(directoryHeadLength + 512 * directoryEntryLength);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Bytes of the plaintext so far. */
  get length(): number {
    return directoryHeadLength + this.#count * directoryEntryLength;
  }

  add(name: Uint8Array, encodedLength: number, plainLength: number, encoding: Encoding): void {
    const at = this.length;
    if (at + directoryEntryLength > this.#bytes.length) {
      const larger = Buffer.alloc(2 * this.#bytes.length);
      this.#bytes.copy(larger);
      this.#bytes = larger;
    }
    const bytes = this.#bytes;
    bytes.set(name, at);
    bytes.writeUInt32LE(encodedLength, at + 32);
    bytes.writeUInt32LE(plainLength, at + 36);
    bytes.writeUInt32LE(encoding, at + 40);
    this.#count++;
  }

  /** Returns the plaintext, valid until the next call of any method. */
  finish(writer: string, created: number): Buffer {
    const bytes = this.#bytes;
    bytes.write(writer, 0, 'hex');
    bytes.writeBigUInt64LE(BigInt(created), 16);
    bytes.writeUInt32LE(this.#count, 24);
    bytes.writeUInt32LE(0, 28);
    return bytes.subarray(0, this.length);
  }

  clear(): void {
    this.#count = 0;
  }
}

/**
 * Parses a directory's plaintext. `end` is the offset of the directory in the pack. The parts must fill all bytes
 * between the header and `end`. Names are views of `plain`.
 */
export function parseDirectory(
  id: string,
  plain: Buffer,
  end: number,
): { writer: string; created: number; parts: PackPart[] } {
  if (plain.length < directoryHeadLength)
    throw damaged(id, `has a directory of ${plain.length} bytes; the minimum is ${directoryHeadLength}`);
  const count = plain.readUInt32LE(24);
  const expected = directoryHeadLength + count * directoryEntryLength;
  if (plain.length !== expected)
    throw damaged(id, `has a directory of ${plain.length} bytes, but ${count} parts need ${expected}`);
  const parts: PackPart[] = [];
  let offset = headerLength;
  for (let at = directoryHeadLength; at < plain.length; at += directoryEntryLength) {
    const encodedLength = plain.readUInt32LE(at + 32);
    const plainLength = plain.readUInt32LE(at + 36);
    const encoding = plain.readUInt32LE(at + 40);
    if (!isPlace(encodedLength, plainLength, encoding))
      throw damaged(
        id,
        `has a part at ${offset} of ${encodedLength} bytes for ${plainLength} in encoding ${encoding}`,
      );
    parts.push({
      name: plain.subarray(at, at + nameLength),
      offset,
      encodedLength,
      plainLength,
      encoding: encoding === 1 ? 1 : 0,
    });
    offset += encodedLength + tagLength;
  }
  if (offset !== end) throw damaged(id, `has parts up to ${offset}, but its directory begins at ${end}`);
  return {
    writer: plain.toString('hex', 0, 16),
    created: Number(plain.readBigUInt64LE(16)),
    parts,
  };
}

function isPlace(encodedLength: number, plainLength: number, encoding: number): boolean {
  if (plainLength < 1 || plainLength > maximumPlainLength || encodedLength < 1) return false;
  return encoding === 0 ? encodedLength === plainLength : encoding === 1 && encodedLength < plainLength;
}

/** Returns a VAULT_DAMAGED error about a pack. `what` is a verb and the rest of the sentence. */
export function damaged(id: string, what: string, cause?: unknown): AgentError {
  return new AgentError('VAULT_DAMAGED', `pack ${id} ${what}`, {
    hint: 'run dattocli vault check to list the affected points; vault check --repair saves readable data',
    cause,
  });
}

function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

function asBuffer(data: Uint8Array): Buffer {
  return Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
