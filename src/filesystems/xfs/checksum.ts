/**
 * Reads values and checksums that all self-describing metadata of XFS v5 has in common. The checksum is a CRC-32C over
 * the whole sector or block; its own four bytes count as zeros (docs/formats/xfs.md).
 */
import { crc32c } from '../../base/crc32c.ts';

const noBytes = new Uint8Array(4);

/** Returns undefined if the checksum at `offset` is right, else a phrase with both numbers. */
export function checksumFault(data: Buffer, offset: number): string | undefined {
  const stored = data.readUInt32LE(offset);
  const before = crc32c(data.subarray(0, offset));
  const computed = crc32c(data.subarray(offset + 4), crc32c(noBytes, before));
  return stored === computed ? undefined : `checksum is ${hex(stored)}, its contents give ${hex(computed)}`;
}

/** Formats a number as `0x0000abcd`. */
export function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

/** Returns a Buffer over the same bytes, for its read methods. */
export function asBuffer(data: Uint8Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

/**
 * Reads a 64-bit big-endian number as a double. Exact below 2^53; a number from 2^53 on never becomes smaller than
 * 2^53.
 */
export function readUInt64(data: Buffer, offset: number): number {
  return data.readUInt32BE(offset) * 2 ** 32 + data.readUInt32BE(offset + 4);
}
