/**
 * Encodes replies for the server: simple replies and structured reply chunks. Headers are written into a buffer of the
 * caller, so that header and payload can go out in one write. The decoder is in reply-decoder.ts.
 * doc/proto.md, "Simple reply message", "Structured reply chunk message", "Structured reply types".
 */
import { NBD_REPLY_FLAG, NBD_REPLY_TYPE, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC } from './constants.ts';
import { stringBytes, writeU64 } from './wire.ts';

export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_HEADER_BYTES = 20;
/** Chunk header and offset, which precede the data of NBD_REPLY_TYPE_OFFSET_DATA. */
export const DATA_CHUNK_HEADER_BYTES = CHUNK_HEADER_BYTES + 8;
/** Size of a whole NBD_REPLY_TYPE_OFFSET_HOLE chunk. */
export const HOLE_CHUNK_BYTES = CHUNK_HEADER_BYTES + 12;

/** One descriptor of a block status chunk. */
export interface StatusDescriptor {
  /** Bytes, 1 to 2^32 - 1. */
  readonly length: number;
  /** NBD_STATE bits for base:allocation. */
  readonly flags: number;
}

/** Writes a simple reply (16 bytes); the data of a successful read follows. `error` is an NBD_ERROR or 0. */
export function encodeSimpleReply(
  into: Buffer,
  at: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  into.writeUInt32BE(SIMPLE_REPLY_MAGIC, at);
  into.writeUInt32BE(error, at + 4);
  into.writeUInt32BE(cookieHigh, at + 8);
  into.writeUInt32BE(cookieLow, at + 12);
}

/** Writes a chunk header (20 bytes); `length` bytes of payload follow. */
export function encodeChunkHeader(
  into: Buffer,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  length: number,
): void {
  into.writeUInt32BE(STRUCTURED_REPLY_MAGIC, at);
  into.writeUInt16BE(flags, at + 4);
  into.writeUInt16BE(type, at + 6);
  into.writeUInt32BE(cookieHigh, at + 8);
  into.writeUInt32BE(cookieLow, at + 12);
  into.writeUInt32BE(length, at + 16);
}

/** Writes NBD_REPLY_TYPE_NONE (20 bytes), always the last chunk. */
export function encodeNoneChunk(into: Buffer, at: number, cookieHigh: number, cookieLow: number): void {
  encodeChunkHeader(into, at, NBD_REPLY_FLAG.DONE, NBD_REPLY_TYPE.NONE, cookieHigh, cookieLow, 0);
}

/** Writes the header (28 bytes) of NBD_REPLY_TYPE_OFFSET_DATA; `dataLength` bytes of data follow. */
export function encodeDataChunkHeader(
  into: Buffer,
  at: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  dataLength: number,
): void {
  encodeChunkHeader(into, at, flags, NBD_REPLY_TYPE.OFFSET_DATA, cookieHigh, cookieLow, dataLength + 8);
  writeU64(into, at + CHUNK_HEADER_BYTES, offset);
}

/** Writes NBD_REPLY_TYPE_OFFSET_HOLE (32 bytes): `length` zero bytes at `offset`. */
export function encodeHoleChunk(
  into: Buffer,
  at: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): void {
  encodeChunkHeader(into, at, flags, NBD_REPLY_TYPE.OFFSET_HOLE, cookieHigh, cookieLow, 12);
  writeU64(into, at + CHUNK_HEADER_BYTES, offset);
  into.writeUInt32BE(length, at + CHUNK_HEADER_BYTES + 8);
}

/**
 * Returns NBD_REPLY_TYPE_ERROR, or NBD_REPLY_TYPE_ERROR_OFFSET if `offset` is given. `message` is a text for users.
 */
export function encodeErrorChunk(
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  error: number,
  message: string,
  offset?: number,
): Buffer {
  const text = stringBytes(message, 'the error message');
  const length = 6 + text.length + (offset === undefined ? 0 : 8);
  const chunk = Buffer.alloc(CHUNK_HEADER_BYTES + length);
  const type = offset === undefined ? NBD_REPLY_TYPE.ERROR : NBD_REPLY_TYPE.ERROR_OFFSET;
  encodeChunkHeader(chunk, 0, flags, type, cookieHigh, cookieLow, length);
  chunk.writeUInt32BE(error, CHUNK_HEADER_BYTES);
  chunk.writeUInt16BE(text.length, CHUNK_HEADER_BYTES + 4);
  text.copy(chunk, CHUNK_HEADER_BYTES + 6);
  if (offset !== undefined) writeU64(chunk, CHUNK_HEADER_BYTES + 6 + text.length, offset);
  return chunk;
}

/** Returns NBD_REPLY_TYPE_BLOCK_STATUS for one metadata context, with at least one descriptor. */
export function encodeBlockStatusChunk(
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  contextId: number,
  descriptors: readonly StatusDescriptor[],
): Buffer {
  const length = 4 + 8 * descriptors.length;
  const chunk = Buffer.alloc(CHUNK_HEADER_BYTES + length);
  encodeChunkHeader(chunk, 0, flags, NBD_REPLY_TYPE.BLOCK_STATUS, cookieHigh, cookieLow, length);
  chunk.writeUInt32BE(contextId, CHUNK_HEADER_BYTES);
  descriptors.forEach((descriptor, i) => {
    chunk.writeUInt32BE(descriptor.length, CHUNK_HEADER_BYTES + 4 + 8 * i);
    chunk.writeUInt32BE(descriptor.flags, CHUNK_HEADER_BYTES + 8 + 8 * i);
  });
  return chunk;
}
