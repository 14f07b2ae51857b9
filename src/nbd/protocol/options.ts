/**
 * The data of option requests and option replies, in both directions. Decoders take exactly the data, whose length is in
 * the header. They throw NBD_PROTOCOL for invalid data; a server then answers NBD_REP_ERR_INVALID.
 * doc/proto.md, "Option types" and "Option reply types".
 */
import { NBD_INFO, infoName } from './constants.ts';
import type { ExportInfo } from './handshake.ts';
import { displayText, protocolError, readSize, readString, stringBytes, writeU64 } from './wire.ts';

/** Data of NBD_OPT_INFO and NBD_OPT_GO. */
export interface InfoRequest {
  readonly name: string;
  /** The requested NBD_INFO numbers. */
  readonly requests: readonly number[];
}

/** Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface MetaContextRequest {
  readonly name: string;
  readonly queries: readonly string[];
}

/** The data of NBD_INFO_BLOCK_SIZE, in bytes. */
export interface BlockSizes {
  /** A power of two, 1 to 65536. */
  readonly minimum: number;
  /** A power of two, at least 512 and at least the minimum. */
  readonly preferred: number;
  /** At least the preferred size; 0xffffffff means no limit. */
  readonly maximum: number;
}

/** Data of NBD_REP_INFO. */
export type InfoReply =
  | ({ readonly type: typeof NBD_INFO.EXPORT } & ExportInfo)
  | { readonly type: typeof NBD_INFO.NAME; readonly name: string }
  | { readonly type: typeof NBD_INFO.DESCRIPTION; readonly description: string }
  | ({ readonly type: typeof NBD_INFO.BLOCK_SIZE } & BlockSizes)
  | { readonly type: 'unknown'; readonly number: number };

/** Data of NBD_REP_SERVER. */
export interface ListedExport {
  readonly name: string;
  /** A text for users; may be empty. */
  readonly description: string;
}

/** Data of NBD_REP_META_CONTEXT. */
export interface MetaContext {
  readonly id: number;
  readonly name: string;
}

export function encodeInfoRequest(request: InfoRequest): Buffer {
  const name = stringBytes(request.name, 'the export name');
  const data = Buffer.alloc(4 + name.length + 2 + 2 * request.requests.length);
  data.writeUInt32BE(name.length, 0);
  name.copy(data, 4);
  data.writeUInt16BE(request.requests.length, 4 + name.length);
  request.requests.forEach((info, i) => data.writeUInt16BE(info, 6 + name.length + 2 * i));
  return data;
}

export function decodeInfoRequest(data: Buffer): InfoRequest {
  const cursor = new Cursor(data, 'the data of NBD_OPT_INFO or NBD_OPT_GO');
  const name = readString(cursor.bytes(cursor.u32()), 'the export name');
  const requests: number[] = [];
  for (let left = cursor.u16(); left > 0; left--) requests.push(cursor.u16());
  cursor.end();
  return { name, requests };
}

export function encodeMetaContextRequest(request: MetaContextRequest): Buffer {
  const name = stringBytes(request.name, 'the export name');
  const parts = [u32(name.length), name, u32(request.queries.length)];
  for (const query of request.queries) {
    const bytes = stringBytes(query, 'a metadata context query');
    parts.push(u32(bytes.length), bytes);
  }
  return Buffer.concat(parts);
}

export function decodeMetaContextRequest(data: Buffer): MetaContextRequest {
  const cursor = new Cursor(data, 'the data of a metadata context option');
  const name = readString(cursor.bytes(cursor.u32()), 'the export name');
  const queries: string[] = [];
  for (let left = cursor.u32(); left > 0; left--)
    queries.push(readString(cursor.bytes(cursor.u32()), 'a metadata context query'));
  cursor.end();
  return { name, queries };
}

export function encodeListedExport(listed: ListedExport): Buffer {
  const name = stringBytes(listed.name, 'the export name');
  return Buffer.concat([u32(name.length), name, stringBytes(listed.description, 'the description')]);
}

export function decodeListedExport(data: Buffer): ListedExport {
  const cursor = new Cursor(data, 'NBD_REP_SERVER');
  const name = readString(cursor.bytes(cursor.u32()), 'the export name');
  return { name, description: displayText(cursor.rest()) };
}

export function encodeInfoReply(info: Exclude<InfoReply, { type: 'unknown' }>): Buffer {
  const type = Buffer.alloc(2);
  type.writeUInt16BE(info.type);
  return Buffer.concat([type, infoPayload(info)]);
}

function infoPayload(info: Exclude<InfoReply, { type: 'unknown' }>): Buffer {
  switch (info.type) {
    case NBD_INFO.EXPORT: {
      const payload = Buffer.alloc(10);
      writeU64(payload, 0, info.size);
      payload.writeUInt16BE(info.flags, 8);
      return payload;
    }
    case NBD_INFO.NAME:
      return stringBytes(info.name, 'the export name');
    case NBD_INFO.DESCRIPTION:
      return stringBytes(info.description, 'the description');
    case NBD_INFO.BLOCK_SIZE:
      return Buffer.concat([u32(info.minimum), u32(info.preferred), u32(info.maximum)]);
  }
}

/** Decodes NBD_REP_INFO. Returns an unknown information type as `unknown`; clients ignore it. */
export function decodeInfoReply(data: Buffer): InfoReply {
  const cursor = new Cursor(data, 'NBD_REP_INFO');
  const type = cursor.u16();
  const expected = type === NBD_INFO.EXPORT ? 12 : type === NBD_INFO.BLOCK_SIZE ? 14 : undefined;
  if (expected !== undefined && data.length !== expected)
    throw protocolError(`${infoName(type)} is ${data.length} bytes long instead of ${expected}`);
  switch (type) {
    case NBD_INFO.EXPORT:
      return { type, size: readSize(data, 2, 'the export'), flags: data.readUInt16BE(10) };
    case NBD_INFO.NAME:
      return { type, name: readString(cursor.rest(), 'the export name') };
    case NBD_INFO.DESCRIPTION:
      return { type, description: displayText(cursor.rest()) };
    case NBD_INFO.BLOCK_SIZE:
      return { type, minimum: cursor.u32(), preferred: cursor.u32(), maximum: cursor.u32() };
    default:
      return { type: 'unknown', number: type };
  }
}

/**
 * Returns the fault of advertised block sizes, or undefined. The rules are in doc/proto.md, "Size constraints".
 */
export function blockSizeFault(sizes: BlockSizes): string | undefined {
  const { minimum, preferred, maximum } = sizes;
  if (!isPowerOfTwo(minimum) || minimum > 65536)
    return `minimum block size ${minimum} is not a power of two up to 65536`;
  if (!isPowerOfTwo(preferred) || preferred < Math.max(minimum, 512))
    return `preferred block size ${preferred} is not a power of two of at least ${Math.max(minimum, 512)}`;
  if (maximum < preferred) return `maximum payload ${maximum} is below the preferred block size ${preferred}`;
  return undefined;
}

export function encodeMetaContext(context: MetaContext): Buffer {
  return Buffer.concat([u32(context.id), stringBytes(context.name, 'the metadata context')]);
}

export function decodeMetaContext(data: Buffer): MetaContext {
  const cursor = new Cursor(data, 'NBD_REP_META_CONTEXT');
  return { id: cursor.u32(), name: readString(cursor.rest(), 'the metadata context') };
}

/** Reads the fields of a message in order. Throws NBD_PROTOCOL if a field exceeds the end. */
class Cursor {
  readonly #data: Buffer;
  readonly #what: string;
  #at = 0;

  constructor(data: Buffer, what: string) {
    this.#data = data;
    this.#what = what;
  }

  bytes(length: number): Buffer {
    if (length > this.#data.length - this.#at)
      throw protocolError(
        `${this.#what} has ${this.#data.length} bytes, but a field of ${length} bytes at ${this.#at} exceeds its end`,
      );
    this.#at += length;
    return this.#data.subarray(this.#at - length, this.#at);
  }

  u16(): number {
    return this.bytes(2).readUInt16BE(0);
  }

  u32(): number {
    return this.bytes(4).readUInt32BE(0);
  }

  rest(): Buffer {
    return this.bytes(this.#data.length - this.#at);
  }

  end(): void {
    if (this.#at !== this.#data.length)
      throw protocolError(
        `${this.#what} has ${this.#data.length} bytes, which is ${this.#data.length - this.#at} too many`,
      );
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}
