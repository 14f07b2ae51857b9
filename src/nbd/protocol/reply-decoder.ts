/**
 * Decodes replies for the client: takes bytes and calls a handler. The data of reads is copied directly into the buffers
 * of the handler. No buffers are joined, and nothing is allocated for simple replies and for data, hole and none chunks.
 * The handler knows the requests: it throws if a reply does not fit its request, and the connection is then lost.
 * doc/proto.md, "Transmission".
 */
import {
  MAX_STATUS_DESCRIPTORS,
  NBD_REPLY_FLAG,
  NBD_REPLY_TYPE,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  isErrorChunk,
  replyTypeName,
} from './constants.ts';
import { hex } from './names.ts';
import { CHUNK_HEADER_BYTES, SIMPLE_REPLY_BYTES, type StatusDescriptor } from './reply.ts';
import { StreamCutter } from './stream-cutter.ts';
import { displayText, protocolError, readU64 } from './wire.ts';

export interface ReplyHandler {
  /**
   * A simple reply; `error` is 0 or an NBD_ERROR. Returns the buffer for the data that follows (a successful read), or
   * undefined if no data follows.
   */
  simple(cookieHigh: number, cookieLow: number, error: number): Uint8Array | undefined;
  /** `length` bytes of data for absolute `offset` follow. Returns a buffer of exactly that length. */
  data(cookieHigh: number, cookieLow: number, offset: number, length: number): Uint8Array;
  /** `length` zero bytes at absolute `offset`. */
  hole(cookieHigh: number, cookieLow: number, offset: number, length: number): void;
  status(
    cookieHigh: number,
    cookieLow: number,
    contextId: number,
    descriptors: readonly StatusDescriptor[],
  ): void;
  /** The request failed. Called also for unknown types of error chunks. */
  error(
    cookieHigh: number,
    cookieLow: number,
    error: number,
    message: string,
    offset: number | undefined,
  ): void;
  /** The last part of this reply has arrived completely. */
  done(cookieHigh: number, cookieLow: number): void;
}

/** The most bytes of an error chunk: 6 bytes, a message of at most 4096, an offset, and room for extensions. */
const MAX_ERROR_PAYLOAD = 65536;
const MAX_STATUS_PAYLOAD = 4 + 8 * MAX_STATUS_DESCRIPTORS;

export class ReplyDecoder {
  readonly #handler: ReplyHandler;
  readonly #structured: boolean;
  readonly #cutter: StreamCutter;
  #state: 'head' | 'chunk-head' | 'body' | 'data-offset' | 'bulk' = 'head';
  #flags = 0;
  #type = 0;
  #high = 0;
  #low = 0;
  #length = 0;

  /** `structured`: structured replies were negotiated. */
  constructor(handler: ReplyHandler, structured: boolean) {
    this.#handler = handler;
    this.#structured = structured;
    this.#cutter = new StreamCutter((piece) => this.#piece(piece));
    this.#cutter.wantBytes(SIMPLE_REPLY_BYTES);
  }

  /** Throws NBD_PROTOCOL, and the errors of the handler. The decoder is then not usable any more. */
  push(chunk: Uint8Array): void {
    this.#cutter.push(chunk);
  }

  #piece(piece: Buffer): void {
    switch (this.#state) {
      case 'head':
        this.#head(piece);
        return;
      case 'chunk-head':
        this.#length = piece.readUInt32BE(0);
        this.#chunk();
        return;
      case 'data-offset':
        this.#dataOffset(piece);
        return;
      case 'body':
        this.#body(piece);
        this.#ended();
        return;
      case 'bulk':
        this.#ended();
        return;
    }
  }

  /** Decodes the first 16 bytes, the size of the smaller header. Both kinds of reply have the cookie at byte 8. */
  #head(piece: Buffer): void {
    const magic = piece.readUInt32BE(0);
    this.#high = piece.readUInt32BE(8);
    this.#low = piece.readUInt32BE(12);
    if (magic === SIMPLE_REPLY_MAGIC) {
      this.#flags = NBD_REPLY_FLAG.DONE;
      const into = this.#handler.simple(this.#high, this.#low, piece.readUInt32BE(4));
      if (into === undefined) this.#ended();
      else {
        this.#state = 'bulk';
        this.#cutter.wantInto(into);
      }
      return;
    }
    if (magic !== STRUCTURED_REPLY_MAGIC)
      throw protocolError(`a reply begins with ${hex(magic)}, which is not a reply magic`);
    if (!this.#structured)
      throw protocolError('a structured reply arrived, but structured replies were not negotiated');
    this.#flags = piece.readUInt16BE(4);
    this.#type = piece.readUInt16BE(6);
    this.#state = 'chunk-head';
    this.#cutter.wantBytes(CHUNK_HEADER_BYTES - SIMPLE_REPLY_BYTES);
  }

  /** Checks the length against the type before the payload is read. */
  #chunk(): void {
    const length = this.#length;
    switch (this.#type) {
      case NBD_REPLY_TYPE.NONE:
        if (length !== 0 || (this.#flags & NBD_REPLY_FLAG.DONE) === 0)
          throw protocolError(`NBD_REPLY_TYPE_NONE with ${length} bytes, or not as the last chunk`);
        this.#ended();
        return;
      case NBD_REPLY_TYPE.OFFSET_DATA:
        if (length < 9) throw this.#badLength();
        this.#state = 'data-offset';
        this.#cutter.wantBytes(8);
        return;
      case NBD_REPLY_TYPE.OFFSET_HOLE:
        if (length !== 12) throw this.#badLength();
        break;
      case NBD_REPLY_TYPE.BLOCK_STATUS:
        if (length < 12 || length % 8 !== 4 || length > MAX_STATUS_PAYLOAD) throw this.#badLength();
        break;
      default:
        if (!isErrorChunk(this.#type))
          throw protocolError(
            `a chunk of type ${replyTypeName(this.#type)} arrived, which we did not request`,
          );
        if (length < 6 || length > MAX_ERROR_PAYLOAD) throw this.#badLength();
    }
    this.#state = 'body';
    this.#cutter.wantBytes(length);
  }

  #dataOffset(piece: Buffer): void {
    const length = this.#length - 8;
    const into = this.#handler.data(this.#high, this.#low, readU64(piece, 0), length);
    if (into.length !== length) throw new RangeError(`${into.length} bytes for a chunk of ${length}`);
    this.#state = 'bulk';
    this.#cutter.wantInto(into);
  }

  #body(piece: Buffer): void {
    if (this.#type === NBD_REPLY_TYPE.OFFSET_HOLE) {
      const length = piece.readUInt32BE(8);
      if (length === 0) throw protocolError('NBD_REPLY_TYPE_OFFSET_HOLE with a hole of 0 bytes');
      this.#handler.hole(this.#high, this.#low, readU64(piece, 0), length);
    } else if (this.#type === NBD_REPLY_TYPE.BLOCK_STATUS) {
      const descriptors: StatusDescriptor[] = [];
      for (let at = 4; at < piece.length; at += 8) {
        const length = piece.readUInt32BE(at);
        if (length === 0) throw protocolError('NBD_REPLY_TYPE_BLOCK_STATUS with an extent of 0 bytes');
        descriptors.push({ length, flags: piece.readUInt32BE(at + 4) });
      }
      this.#handler.status(this.#high, this.#low, piece.readUInt32BE(0), descriptors);
    } else {
      this.#error(piece);
    }
  }

  #error(piece: Buffer): void {
    const messageLength = piece.readUInt16BE(4);
    const offsetBytes = this.#type === NBD_REPLY_TYPE.ERROR_OFFSET ? 8 : 0;
    if (6 + messageLength + offsetBytes > piece.length)
      throw protocolError(
        `${replyTypeName(this.#type)} has ${piece.length} bytes, too few for a message of ${messageLength}`,
      );
    const error = piece.readUInt32BE(0);
    if (error === 0) throw protocolError(`${replyTypeName(this.#type)} with error 0`);
    const message = displayText(piece.subarray(6, 6 + messageLength));
    const offset = offsetBytes === 0 ? undefined : readU64(piece, 6 + messageLength);
    this.#handler.error(this.#high, this.#low, error, message, offset);
  }

  #ended(): void {
    this.#state = 'head';
    this.#cutter.wantBytes(SIMPLE_REPLY_BYTES);
    if ((this.#flags & NBD_REPLY_FLAG.DONE) !== 0) this.#handler.done(this.#high, this.#low);
  }

  #badLength(): Error {
    return protocolError(
      `${replyTypeName(this.#type)} has a length of ${this.#length}, which is not allowed`,
    );
  }
}
