/** Checksums of the index's rows: CRC-32C over all values of a row and the ID of its pack. Pure. */
import { crc32c } from '../../base/crc32c.ts';
import { type PackKind, type PartPlace } from '../packs/format.ts';

const idLength = 16;
const nameLength = 32;
const part = Buffer.alloc(nameLength + idLength + 8 + 4 + 4 + 4);
const pack = Buffer.alloc(2 * idLength + 4 + 8 + 8 + 4 + 4);

/** `packId` has 16 bytes. */
export function partSum(name: Uint8Array, packId: Uint8Array, kind: PackKind, place: PartPlace): number {
  part.set(name.subarray(0, nameLength));
  part.set(packId.subarray(0, idLength), nameLength);
  const at = nameLength + idLength;
  part.writeDoubleLE(place.offset, at);
  part.writeUInt32LE(place.encodedLength >>> 0, at + 8);
  part.writeUInt32LE(place.plainLength >>> 0, at + 12);
  part.writeUInt16LE(place.encoding, at + 16);
  part.writeUInt16LE(kind === 'chunks' ? 1 : 2, at + 18);
  return crc32c(part);
}

export interface SummedPack {
  /** 16 bytes. */
  readonly id: Uint8Array;
  readonly writer: Uint8Array;
  readonly kind: PackKind;
  readonly size: number;
  readonly created: number;
  readonly parts: number;
  /** Number of rows of its parts. */
  readonly entries: number;
}

export function packSum({ id, writer, kind, size, created, parts, entries }: SummedPack): number {
  pack.set(id.subarray(0, idLength));
  pack.set(writer.subarray(0, idLength), idLength);
  const at = 2 * idLength;
  pack.writeUInt32LE(kind === 'chunks' ? 1 : 2, at);
  pack.writeDoubleLE(size, at + 4);
  pack.writeDoubleLE(created, at + 12);
  pack.writeUInt32LE(parts >>> 0, at + 20);
  pack.writeUInt32LE(entries >>> 0, at + 24);
  return crc32c(pack);
}
