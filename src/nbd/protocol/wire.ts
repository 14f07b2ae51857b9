/**
 * Reads and writes 64-bit numbers as `number` and strings, and makes the only error of this folder. All numbers of NBD are
 * big-endian ("network byte order").
 */
import { AgentError } from '../../base/errors.ts';
import { MAX_STRING } from './constants.ts';

/** Returns the error for any violation of the protocol. */
export function protocolError(message: string): AgentError {
  return new AgentError('NBD_PROTOCOL', message, {
    hint: 'the peer violates the NBD protocol: check the address and port, and which program listens there',
  });
}

/**
 * Reads 64 bits. Values of 2^53 and more lose their low bits but stay as large, so that a check against a size still
 * refuses them.
 */
export function readU64(buffer: Buffer, at: number): number {
  return buffer.readUInt32BE(at) * 0x1_0000_0000 + buffer.readUInt32BE(at + 4);
}

/** Writes a whole number below 2^53 as 64 bits. */
export function writeU64(buffer: Buffer, at: number, value: number): void {
  buffer.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at);
  buffer.writeUInt32BE(value % 0x1_0000_0000, at + 4);
}

/** Reads a size of 64 bits, which must be below 2^53. Throws NBD_PROTOCOL, which names `what`. */
export function readSize(buffer: Buffer, at: number, what: string): number {
  const value = readU64(buffer, at);
  if (!Number.isSafeInteger(value))
    throw protocolError(`${what} is ${buffer.readBigUInt64BE(at)} bytes, more than 2^53 - 1`);
  return value;
}

/** Decodes a string that must be UTF-8 without NUL and at most 4096 bytes. Throws NBD_PROTOCOL. */
export function readString(bytes: Uint8Array, what: string): string {
  if (bytes.length > MAX_STRING)
    throw protocolError(`${what} is ${bytes.length} bytes long, more than ${MAX_STRING}`);
  let text: string;
  try {
    text = strictUtf8.decode(bytes);
  } catch {
    throw protocolError(`${what} is not UTF-8`);
  }
  if (text.includes('\0')) throw protocolError(`${what} contains a NUL`);
  return text;
}

/** Encodes a string. Throws NBD_PROTOCOL if a peer could not accept it. */
export function stringBytes(text: string, what: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length > MAX_STRING || text.includes('\0'))
    throw protocolError(`${what} is ${bytes.length} bytes long (at most ${MAX_STRING}) or contains a NUL`);
  return bytes;
}

/** Decodes text that is only displayed. Never throws, replaces control characters by spaces, truncates at 4096 bytes. */
export function displayText(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, MAX_STRING)).toString(
    'utf8',
  );
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ').trim();
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
