/**
 * Transmission requests: the 28-byte header, and a decoder for the server that copies the payload of a write directly into
 * the handler's buffer.
 *
 * A cookie is 64 opaque bits, kept as two 32-bit numbers, because these need no allocation.
 * doc/proto.md, "Request message".
 */
import { NBD_CMD, REQUEST_MAGIC } from './constants.ts';
import { hex } from './names.ts';
import { StreamCutter } from './stream-cutter.ts';
import { protocolError, readU64, writeU64 } from './wire.ts';

export const REQUEST_BYTES = 28;

export interface Request {
  /** NBD_CMD_FLAG bits. */
  readonly flags: number;
  /** NBD_CMD. */
  readonly type: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Bytes. A value of 2^53 or more is rounded, but still outside of any export. */
  readonly offset: number;
  /** Bytes, 32 bits. */
  readonly length: number;
}

/** Writes a request header at `at`, without any allocation. */
export function encodeRequest(
  into: Buffer,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): void {
  into.writeUInt32BE(REQUEST_MAGIC, at);
  into.writeUInt16BE(flags, at + 4);
  into.writeUInt16BE(type, at + 6);
  into.writeUInt32BE(cookieHigh, at + 8);
  into.writeUInt32BE(cookieLow, at + 12);
  writeU64(into, at + 16, offset);
  into.writeUInt32BE(length, at + 24);
}

function decodeRequest(bytes: Buffer): Request {
  const magic = bytes.readUInt32BE(0);
  if (magic !== REQUEST_MAGIC)
    throw protocolError(`a request begins with ${hex(magic)} instead of ${hex(REQUEST_MAGIC)}`);
  return {
    flags: bytes.readUInt16BE(4),
    type: bytes.readUInt16BE(6),
    cookieHigh: bytes.readUInt32BE(8),
    cookieLow: bytes.readUInt32BE(12),
    offset: readU64(bytes, 16),
    length: bytes.readUInt32BE(24),
  };
}

export interface RequestHandler {
  /**
   * A header has arrived. Returns false if there is no memory for the request now. The decoder then keeps the request,
   * delivers nothing, and asks again at `release`. Absent: every request is accepted at once.
   */
  admit?(request: Request): boolean;
  /**
   * The header of a write has arrived. Returns a buffer of exactly `request.length` bytes for the payload, or undefined to
   * skip the payload; `request` then refuses the request.
   */
  payloadFor(request: Request): Uint8Array | undefined;
  /** A request is complete. `payload` is the buffer of `payloadFor`; undefined for all commands but writes. */
  request(request: Request, payload: Uint8Array | undefined): void;
}

/** Decodes requests for the server. After NBD_CMD_DISC it reads nothing more. */
export class RequestDecoder {
  readonly #handler: RequestHandler;
  readonly #cutter: StreamCutter;
  /** A request that was not admitted yet. */
  #waiting: Request | undefined;
  /** `hold` was called during the delivery of a request that had waited. */
  #holdAgain = false;
  #writing: Request | undefined;
  #payload: Uint8Array | undefined;

  constructor(handler: RequestHandler) {
    this.#handler = handler;
    this.#cutter = new StreamCutter((piece) => this.#piece(piece));
    this.#cutter.wantBytes(REQUEST_BYTES);
  }

  /** Throws NBD_PROTOCOL for a wrong magic, and the errors of the handler. The connection is then lost. */
  push(chunk: Uint8Array): void {
    this.#cutter.push(chunk);
  }

  /** Delivers no further request until `release`: the handler is at its limit. */
  hold(): void {
    this.#holdAgain = true;
    this.#cutter.hold();
  }

  /** Ends a hold and delivers the waiting requests. Throws like `push`. */
  release(): void {
    const request = this.#waiting;
    if (request !== undefined) {
      this.#waiting = undefined;
      this.#holdAgain = false;
      this.#begin(request);
      if (this.#isHeldAgain()) return;
    }
    this.#cutter.release();
  }

  /** The buffer for the rest of a write's payload, into which the next bytes of the stream can be received directly. */
  get destination(): Uint8Array | undefined {
    return this.#cutter.destination;
  }

  /** Reports that the next `bytes` bytes of the stream were put at the start of `destination`. */
  filled(bytes: number): void {
    this.#cutter.filled(bytes);
  }

  /** True within a request, where the stream must not end. */
  get midRequest(): boolean {
    return this.#waiting !== undefined || this.#writing !== undefined || this.#cutter.midPiece;
  }

  #piece(piece: Buffer): void {
    if (this.#writing === undefined) {
      this.#begin(decodeRequest(piece));
      return;
    }
    const request = this.#writing;
    const payload = this.#payload;
    this.#writing = undefined;
    this.#payload = undefined;
    this.#cutter.wantBytes(REQUEST_BYTES);
    this.#handler.request(request, payload);
  }

  #isHeldAgain(): boolean {
    return this.#holdAgain;
  }

  #begin(request: Request): void {
    if (this.#handler.admit?.(request) === false) {
      this.#waiting = request;
      this.hold();
      return;
    }
    if (request.type === NBD_CMD.WRITE) {
      this.#writing = request;
      this.#payload = this.#handler.payloadFor(request);
      if (this.#payload === undefined) this.#cutter.wantSkip(request.length);
      else if (this.#payload.length === request.length) this.#cutter.wantInto(this.#payload);
      else throw new RangeError(`${this.#payload.length} bytes for a payload of ${request.length}`);
      return;
    }
    if (request.type !== NBD_CMD.DISC) this.#cutter.wantBytes(REQUEST_BYTES);
    this.#handler.request(request, undefined);
  }
}
