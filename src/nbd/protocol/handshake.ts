/**
 * The handshake messages of fixed size, in both directions: greetings, client flags, headers of option requests and
 * replies, and the answer to NBD_OPT_EXPORT_NAME. Decoders take a buffer of exactly the named size, as StreamCutter
 * delivers it. They throw NBD_PROTOCOL.
 * doc/proto.md, "Handshake".
 */
import { CLISERV_MAGIC, IHAVEOPT, INIT_PASSWD, OPTION_REPLY_MAGIC } from './constants.ts';
import { protocolError, readSize, writeU64 } from './wire.ts';

/** INIT_PASSWD and the magic of oldstyle or newstyle. */
export const GREETING_BYTES = 16;
export const NEWSTYLE_FLAGS_BYTES = 2;
/** The rest of an oldstyle greeting: size, flags, 124 zeroes. */
export const OLDSTYLE_REST_BYTES = 8 + 4 + 124;
export const CLIENT_FLAGS_BYTES = 4;
export const OPTION_HEADER_BYTES = 16;
export const OPTION_REPLY_HEADER_BYTES = 20;
/** Answer to NBD_OPT_EXPORT_NAME; 124 zeroes follow unless NO_ZEROES was agreed. */
export const EXPORT_NAME_REPLY_BYTES = 10;
export const RESERVED_ZEROES = 124;

export interface OptionHeader {
  readonly option: number;
  /** Bytes of data that follow. */
  readonly length: number;
}

export interface OptionReplyHeader extends OptionHeader {
  readonly type: number;
}

/** Size and flags of an export, which the server sends before the transmission phase. */
export interface ExportInfo {
  /** Bytes. */
  readonly size: number;
  /** NBD_FLAG bits. */
  readonly flags: number;
}

export function encodeNewstyleGreeting(handshakeFlags: number): Buffer {
  const flags = Buffer.alloc(NEWSTYLE_FLAGS_BYTES);
  flags.writeUInt16BE(handshakeFlags);
  return Buffer.concat([INIT_PASSWD, IHAVEOPT, flags]);
}

/** Returns the greeting of an oldstyle server. @internal Our server is newstyle; scripted servers of tests are not. */
export function encodeOldstyleGreeting(info: ExportInfo): Buffer {
  const rest = Buffer.alloc(OLDSTYLE_REST_BYTES);
  writeU64(rest, 0, info.size);
  rest.writeUInt32BE(info.flags, 8);
  return Buffer.concat([INIT_PASSWD, CLISERV_MAGIC, rest]);
}

export function decodeGreeting(bytes: Buffer): 'oldstyle' | 'newstyle' {
  if (bytes.compare(INIT_PASSWD, 0, 8, 0, 8) !== 0)
    throw protocolError(`the greeting begins with ${quoted(bytes, 0)} instead of "NBDMAGIC"`);
  if (bytes.compare(IHAVEOPT, 0, 8, 8, 16) === 0) return 'newstyle';
  if (bytes.compare(CLISERV_MAGIC, 0, 8, 8, 16) === 0) return 'oldstyle';
  throw protocolError(
    `the greeting continues with ${quoted(bytes, 8)}, which is neither oldstyle nor newstyle`,
  );
}

/** The handshake flags after a newstyle greeting. */
export function decodeNewstyleFlags(bytes: Buffer): number {
  return bytes.readUInt16BE(0);
}

export function decodeOldstyleRest(bytes: Buffer): ExportInfo {
  // The upper half of the 32 bits are the handshake flags of newstyle. Oldstyle defines none.
  return { size: readSize(bytes, 0, 'the export'), flags: bytes.readUInt16BE(10) };
}

export function encodeClientFlags(flags: number): Buffer {
  const bytes = Buffer.alloc(CLIENT_FLAGS_BYTES);
  bytes.writeUInt32BE(flags);
  return bytes;
}

export function decodeClientFlags(bytes: Buffer): number {
  return bytes.readUInt32BE(0);
}

/** Returns an option request: header and data. */
export function encodeOption(option: number, data: Uint8Array = noData): Buffer {
  const header = Buffer.alloc(OPTION_HEADER_BYTES);
  IHAVEOPT.copy(header, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

export function decodeOptionHeader(bytes: Buffer): OptionHeader {
  if (bytes.compare(IHAVEOPT, 0, 8, 0, 8) !== 0)
    throw protocolError(`an option begins with ${quoted(bytes, 0)} instead of "IHAVEOPT"`);
  return { option: bytes.readUInt32BE(8), length: bytes.readUInt32BE(12) };
}

/** Returns a reply to an option: header and data. */
export function encodeOptionReply(option: number, type: number, data: Uint8Array = noData): Buffer {
  const header = Buffer.alloc(OPTION_REPLY_HEADER_BYTES);
  OPTION_REPLY_MAGIC.copy(header, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(type, 12);
  header.writeUInt32BE(data.length, 16);
  return Buffer.concat([header, data]);
}

export function decodeOptionReplyHeader(bytes: Buffer): OptionReplyHeader {
  if (bytes.compare(OPTION_REPLY_MAGIC, 0, 8, 0, 8) !== 0)
    throw protocolError(`an option reply begins with ${quoted(bytes, 0)} instead of 0x3e889045565a9`);
  return { option: bytes.readUInt32BE(8), type: bytes.readUInt32BE(12), length: bytes.readUInt32BE(16) };
}

/** Returns the answer to NBD_OPT_EXPORT_NAME; `zeroes` adds the 124 reserved bytes. */
export function encodeExportNameReply(info: ExportInfo, zeroes: boolean): Buffer {
  const bytes = Buffer.alloc(EXPORT_NAME_REPLY_BYTES + (zeroes ? RESERVED_ZEROES : 0));
  writeU64(bytes, 0, info.size);
  bytes.writeUInt16BE(info.flags, 8);
  return bytes;
}

/** Decodes the first 10 bytes of the answer to NBD_OPT_EXPORT_NAME. */
export function decodeExportNameReply(bytes: Buffer): ExportInfo {
  return { size: readSize(bytes, 0, 'the export'), flags: bytes.readUInt16BE(8) };
}

function quoted(bytes: Buffer, at: number): string {
  return `0x${bytes.toString('hex', at, at + 8)}`;
}

const noData = Buffer.alloc(0);
