/**
 * The record of a clean shutdown. For each tracked device it holds the blocks that were dirty at the last drain, and
 * the signs of life at that time. Converts bytes to values and back; specified in docs/formats/reboot.md. Pure.
 */
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { Bitmap } from '../../base/bitmap.ts';
import { crc32c } from '../../base/crc32c.ts';
import type { Signs } from '../../filesystems/signs.ts';
import type { Generation } from '../generation.ts';
import type { Epoch } from '../tracker.ts';

export const recordMagic = 'DATTORBT';
const version = 1;
/** Bytes before the body. A place that is prepared for records begins with such a header. */
export const headerSize = 64;
/** Text length that means there is no record. A raw place that has been prepared holds this. */
const nothing = 0;
/** Offset of the ID of the boot that uses the record, 16 bytes. Zeros: the record was not used yet. */
const usedAt = 28;
const usedSize = 16;

export interface RecordedDevice {
  readonly path: string;
  /** UUID of its filesystem. */
  readonly uuid: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes from the start of its disk; 0 if the device is not a partition. */
  readonly partitionStart: number;
  /** Name that the hardware or device-mapper gives the device; empty if there is none. */
  readonly identity: string;
  readonly signs: Signs;
  readonly epoch: Epoch;
  /** Generation of the map at the drain; undefined in records of older versions. */
  readonly generation?: Generation;
  readonly dirty: Bitmap;
}

/** A device that was tracked and cannot be continued after the reboot, for the message. */
export interface LeftOut {
  readonly path: string;
  /** UUID of its filesystem. */
  readonly uuid: string;
  /** ID of its epoch; undefined in records of older versions. */
  readonly epoch?: string;
  readonly why: string;
}

export interface RebootRecord {
  /** ID of the boot that was shut down. */
  readonly bootId: string;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly devices: readonly RecordedDevice[];
  readonly leftOut: readonly LeftOut[];
}

interface Text extends Omit<RebootRecord, 'devices'> {
  readonly devices: readonly (Omit<RecordedDevice, 'dirty'> & {
    readonly unit: number;
    /** Bytes of the compressed map in the body, and bytes of the map itself. */
    readonly packed: number;
    readonly length: number;
  })[];
}

export function encodeRecord(record: RebootRecord): Buffer {
  const maps: Buffer[] = [];
  const devices = record.devices.map(({ dirty, ...rest }) => {
    const packed = deflateRawSync(dirty.content, { level: 1 });
    maps.push(packed);
    return { ...rest, unit: dirty.unit, packed: packed.length, length: dirty.content.length };
  });
  const text = Buffer.from(JSON.stringify({ ...record, devices } satisfies Text));
  return withHeader(text.length, Buffer.concat([text, ...maps]));
}

/** Encodes the absence of a record, for a raw place that was prepared or whose record was used. */
export function encodeNothing(): Buffer {
  return withHeader(nothing, Buffer.alloc(0));
}

function withHeader(textLength: number, body: Buffer): Buffer {
  const header = Buffer.alloc(headerSize);
  header.write(recordMagic, 0, 'latin1');
  header.writeUInt32LE(version, 8);
  header.writeUInt32LE(textLength, 12);
  header.writeBigUInt64LE(BigInt(body.length), 16);
  header.writeUInt32LE(crc32c(body), 24);
  header.writeUInt32LE(crc32c(header.subarray(0, headerSize - 4)), headerSize - 4);
  return Buffer.concat([header, body]);
}

/**
 * Returns the length in bytes of the whole record according to its header; a phrase if this is not a record of this
 * version.
 */
export function recordLength(header: Buffer): number | string {
  if (header.length < headerSize || header.toString('latin1', 0, 8) !== recordMagic)
    return 'it does not begin as a record does';
  if (crc32c(header.subarray(0, headerSize - 4)) !== header.readUInt32LE(headerSize - 4))
    return 'its header is damaged';
  const found = header.readUInt32LE(8);
  if (found !== version) return `it has version ${found}, of another version of the agent, not ${version}`;
  return headerSize + Number(header.readBigUInt64LE(16));
}

/** Returns the same record, marked as used by a boot (its ID is a UUID). Only the header changes. */
export function markUsed(record: Buffer, bootId: string): Buffer {
  const marked = Buffer.from(record);
  const name = Buffer.from(bootId.replaceAll('-', ''), 'hex');
  if (name.length !== usedSize) throw new RangeError(`a boot id of ${name.length} bytes, not ${usedSize}`);
  name.copy(marked, usedAt);
  marked.writeUInt32LE(crc32c(marked.subarray(0, headerSize - 4)), headerSize - 4);
  return marked;
}

/** Returns the boot that began to use the record (see `markUsed`); undefined if none did. */
export function usedBy(record: Buffer): string | undefined {
  const name = record.subarray(usedAt, usedAt + usedSize).toString('hex');
  if (/^0*$/.test(name)) return undefined;
  return name.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** Decodes the record. Returns undefined if there is none, a phrase if it cannot be used. */
export function decodeRecord(bytes: Buffer): RebootRecord | string | undefined {
  const length = recordLength(bytes);
  if (typeof length === 'string') return length;
  if (bytes.length < length) return `it has ${bytes.length} bytes of ${length}`;
  const body = bytes.subarray(headerSize, length);
  if (crc32c(body) !== bytes.readUInt32LE(24)) return 'it is damaged';
  const textLength = bytes.readUInt32LE(12);
  if (textLength === nothing) return undefined;
  try {
    const text = JSON.parse(body.toString('utf8', 0, textLength)) as Text;
    let at = textLength;
    const devices = text.devices.map(({ unit, packed, length: expected, ...rest }) => {
      const words = inflateRawSync(body.subarray(at, at + packed), { maxOutputLength: expected + 1 });
      at += packed;
      const dirty = new Bitmap(rest.size, unit);
      dirty.load(words);
      return { ...rest, dirty };
    });
    return { ...text, devices };
  } catch (thrown) {
    return `it cannot be read: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
  }
}
