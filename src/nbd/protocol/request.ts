/**
 * Transmission requests: the 28-byte header, and a decoder for the server's side that copies a write's
 * payload straight to where the handler wants it.
 *
 * A cookie is 64 opaque bits. It is carried as two 32-bit numbers, because those cost no allocation.
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
  /** Bytes; a value of 2^53 and more is rounded, and out of any range. */
  readonly offset: number;
  /** Bytes, 32 bits. */
  readonly length: number;
}

/** Writes a request header at `at`; nothing is allocated. */
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
   * A header has arrived. False: there is no memory for the request now. The decoder then keeps it, hands out
   * nothing, and asks again at `release`. Absent: every request is taken at once.
   */
  admit?(request: Request): boolean;
  /**
   * A write's header has arrived: returns where its payload goes (a buffer of exactly `request.length` bytes),
   * or undefined to let the payload pass unread (the request is then refused from `request`).
   */
  payloadFor(request: Request): Uint8Array | undefined;
  /** A request is complete. `payload` is what `payloadFor` returned; undefined for every other command. */
  request(request: Request, payload: Uint8Array | undefined): void;
}

/** The server's side: bytes in, requests out. After NBD_CMD_DISC nothing more is read. */
export class RequestDecoder {
  readonly #handler: RequestHandler;
  readonly #cutter: StreamCutter;
  /** Was not admitted yet. */
  #waiting: Request | undefined;
  /** `hold` was called while a request that had waited was handed out. */
  #holdAgain = false;
  #writing: Request | undefined;
  #payload: Uint8Array | undefined;

  constructor(handler: RequestHandler) {
    this.#handler = handler;
    this.#cutter = new StreamCutter((piece) => this.#piece(piece));
    this.#cutter.wantBytes(REQUEST_BYTES);
  }

  /** Throws NBD_PROTOCOL for a wrong magic, and whatever the handler throws; the connection is then lost. */
  push(chunk: Uint8Array): void {
    this.#cutter.push(chunk);
  }

  /** Hands out no further request until `release`: the handler has enough to do. */
  hold(): void {
    this.#holdAgain = true;
    this.#cutter.hold();
  }

  /** Ends a hold and hands out what waited. Throws as `push` does. */
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

  /** Where the next bytes of the stream may be received straight into: the rest of a write's payload. */
  get destination(): Uint8Array | undefined {
    return this.#cutter.destination;
  }

  /** Says that the next `bytes` bytes of the stream now lie at the start of `destination`. */
  filled(bytes: number): void {
    this.#cutter.filled(bytes);
  }

  /** True where the stream may not end here. */
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
