/**
 * An NBD server in memory for unit tests of the client. It uses no sockets and supports every handshake style. A test can
 * replace any answer, for example by an invalid one.
 */
import { duplexPair, type Duplex } from 'node:stream';
import {
  BASE_ALLOCATION,
  NBD_CMD,
  NBD_ERROR,
  NBD_FLAG,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  NBD_REPLY_FLAG,
  NBD_STATE,
} from '../../src/nbd/protocol/constants.ts';
import * as wire from '../../src/nbd/protocol/handshake.ts';
import * as options from '../../src/nbd/protocol/options.ts';
import * as reply from '../../src/nbd/protocol/reply.ts';
import { type Request, RequestDecoder } from '../../src/nbd/protocol/request.ts';
import { StreamCutter } from '../../src/nbd/protocol/stream-cutter.ts';

export interface Script {
  readonly size?: number;
  /** The image instead of `size`, if several servers share it. */
  readonly memory?: Buffer;
  /** NBD_FLAG bits; default all but READ_ONLY. */
  readonly flags?: number;
  readonly style?: 'oldstyle' | 'newstyle' | 'fixed newstyle';
  readonly noZeroes?: boolean;
  readonly structured?: boolean;
  readonly blockSizes?: options.BlockSizes;
  /** Writes to the client in pieces of this many bytes. */
  readonly split?: number;
  /** Replaces the answer to an option. Returns undefined for the usual answer. */
  readonly option?: (option: number, data: Buffer, server: ScriptedServer) => Buffer | 'hang up' | undefined;
  /** Replaces the answer to a request. Returns true if it has answered. */
  readonly request?:
    ((request: Request, payload: Uint8Array | undefined, server: ScriptedServer) => boolean) | undefined;
}

const allFlags =
  NBD_FLAG.HAS_FLAGS |
  NBD_FLAG.SEND_FLUSH |
  NBD_FLAG.SEND_FUA |
  NBD_FLAG.SEND_TRIM |
  NBD_FLAG.SEND_WRITE_ZEROES |
  NBD_FLAG.CAN_MULTI_CONN |
  NBD_FLAG.SEND_FAST_ZERO;

const CONTEXT = 77;
const BLOCK = 4096;

export class ScriptedServer {
  /** The client's end of the wire. */
  readonly client: Duplex;
  readonly memory: Buffer;
  readonly requests: Request[] = [];
  readonly optionsSeen: number[] = [];
  /** All bytes that the client was sent, in their order. */
  readonly said: Uint8Array[] = [];
  readonly #wire: Duplex;
  readonly #script: Script;
  #structured = false;

  /** `wire` is an accepted connection. Without it, `client` is the other end of a pair in memory. */
  constructor(script: Script = {}, wire?: Duplex) {
    const [client, server] = wire === undefined ? duplexPair() : [wire, wire];
    this.client = client;
    this.#wire = server;
    this.#script = script;
    this.memory = script.memory ?? Buffer.alloc(script.size ?? 2 ** 22);
    this.#serve();
  }

  get structured(): boolean {
    return this.#structured;
  }

  get info(): wire.ExportInfo {
    return { size: this.memory.length, flags: this.#script.flags ?? allFlags };
  }

  /** Sends bytes in a later turn of the event loop, like a real connection. */
  say(bytes: Uint8Array): void {
    const { split = bytes.length } = this.#script;
    setImmediate(() => {
      this.said.push(bytes);
      for (let at = 0; at < bytes.length && this.#wire.writable; at += split)
        this.#wire.write(bytes.subarray(at, at + split));
    });
  }

  hangUp(): void {
    setImmediate(() => this.#wire.end());
  }

  /** Sends a reply without data; `error` is an NBD_ERROR or 0. */
  answer(request: Request, error = 0): void {
    const { cookieHigh, cookieLow } = request;
    const bytes = Buffer.alloc(reply.CHUNK_HEADER_BYTES);
    if (this.#structured && error !== 0)
      this.say(reply.encodeErrorChunk(NBD_REPLY_FLAG.DONE, cookieHigh, cookieLow, error, 'as scripted'));
    else if (this.#structured) {
      reply.encodeNoneChunk(bytes, 0, cookieHigh, cookieLow);
      this.say(bytes);
    } else {
      reply.encodeSimpleReply(bytes, 0, error, cookieHigh, cookieLow);
      this.say(bytes.subarray(0, reply.SIMPLE_REPLY_BYTES));
    }
  }

  /** Sends one data chunk, or the whole simple reply to a read. */
  answerData(request: Request, offset: number, data: Uint8Array, done: boolean): void {
    const head = Buffer.alloc(reply.DATA_CHUNK_HEADER_BYTES);
    const { cookieHigh, cookieLow } = request;
    const flags = done ? NBD_REPLY_FLAG.DONE : 0;
    if (this.#structured)
      reply.encodeDataChunkHeader(head, 0, flags, cookieHigh, cookieLow, offset, data.length);
    else reply.encodeSimpleReply(head, 0, 0, cookieHigh, cookieLow);
    this.say(Buffer.concat([this.#structured ? head : head.subarray(0, reply.SIMPLE_REPLY_BYTES), data]));
  }

  answerHole(request: Request, offset: number, length: number, done: boolean): void {
    const chunk = Buffer.alloc(reply.HOLE_CHUNK_BYTES);
    const flags = done ? NBD_REPLY_FLAG.DONE : 0;
    reply.encodeHoleChunk(chunk, 0, flags, request.cookieHigh, request.cookieLow, offset, length);
    this.say(chunk);
  }

  answerStatus(request: Request, descriptors: readonly reply.StatusDescriptor[], context = CONTEXT): void {
    const { cookieHigh, cookieLow } = request;
    this.say(reply.encodeBlockStatusChunk(NBD_REPLY_FLAG.DONE, cookieHigh, cookieLow, context, descriptors));
  }

  #serve(): void {
    const { style = 'fixed newstyle', noZeroes = true } = this.#script;
    if (style === 'oldstyle') {
      this.say(wire.encodeOldstyleGreeting(this.info));
      this.#transmit(Buffer.alloc(0));
      return;
    }
    this.say(
      wire.encodeNewstyleGreeting(
        (style === 'newstyle' ? 0 : NBD_HANDSHAKE.FIXED_NEWSTYLE) | (noZeroes ? NBD_HANDSHAKE.NO_ZEROES : 0),
      ),
    );
    let header: wire.OptionHeader | undefined;
    let greeted = false;
    let entered = false;
    const cutter = new StreamCutter((piece) => {
      if (!greeted) greeted = true;
      else if (header === undefined) {
        header = wire.decodeOptionHeader(piece);
        cutter.wantBytes(header.length);
        return;
      } else {
        const { option } = header;
        header = undefined;
        this.optionsSeen.push(option);
        entered = this.#option(option, Buffer.from(piece), noZeroes);
        if (entered) return;
      }
      cutter.wantBytes(wire.OPTION_HEADER_BYTES);
    });
    cutter.wantBytes(wire.CLIENT_FLAGS_BYTES);
    const onData = (chunk: Buffer): void => {
      cutter.push(chunk);
      if (!entered) return;
      this.#wire.removeListener('data', onData);
      this.#transmit(cutter.takeRest());
    };
    this.#wire.on('data', onData);
    this.#wire.on('error', () => undefined);
  }

  /** Answers an option. Returns true if the transmission phase begins. */
  #option(option: number, data: Buffer, noZeroes: boolean): boolean {
    const scripted = this.#script.option?.(option, data, this);
    if (scripted === 'hang up') {
      this.hangUp();
      return false;
    }
    if (scripted !== undefined) {
      this.say(scripted);
      return false;
    }
    const say = (type: number, payload?: Buffer): void =>
      this.say(wire.encodeOptionReply(option, type, payload));
    switch (option) {
      case NBD_OPT.EXPORT_NAME:
        this.say(wire.encodeExportNameReply(this.info, !noZeroes));
        return true;
      case NBD_OPT.ABORT:
        say(NBD_REP.ACK);
        this.hangUp();
        return false;
      case NBD_OPT.LIST:
        for (const name of ['', 'disk'])
          say(NBD_REP.SERVER, options.encodeListedExport({ name, description: `about "${name}"` }));
        say(NBD_REP.ACK);
        return false;
      case NBD_OPT.STRUCTURED_REPLY:
        this.#structured = this.#script.structured ?? true;
        say(this.#structured ? NBD_REP.ACK : NBD_REP.ERR_UNSUP);
        return false;
      case NBD_OPT.SET_META_CONTEXT:
        say(NBD_REP.META_CONTEXT, options.encodeMetaContext({ id: CONTEXT, name: BASE_ALLOCATION }));
        say(NBD_REP.ACK);
        return false;
      case NBD_OPT.INFO:
      case NBD_OPT.GO:
        if (this.#script.blockSizes !== undefined)
          say(
            NBD_REP.INFO,
            options.encodeInfoReply({ type: NBD_INFO.BLOCK_SIZE, ...this.#script.blockSizes }),
          );
        // An information type that no client knows yet.
        say(NBD_REP.INFO, Buffer.from('1234abcd', 'hex'));
        say(NBD_REP.INFO, options.encodeInfoReply({ type: NBD_INFO.EXPORT, ...this.info }));
        say(NBD_REP.ACK);
        return option === NBD_OPT.GO;
      default:
        say(NBD_REP.ERR_UNSUP);
        return false;
    }
  }

  #transmit(rest: Buffer): void {
    const decoder = new RequestDecoder({
      payloadFor: (request) => Buffer.alloc(request.length),
      request: (request, payload) => {
        this.requests.push(request);
        if (this.#script.request?.(request, payload, this) !== true) this.#request(request, payload);
      },
    });
    decoder.push(rest);
    this.#wire.on('data', (chunk: Buffer) => decoder.push(chunk));
  }

  #request(request: Request, payload: Uint8Array | undefined): void {
    const { type, offset, length } = request;
    switch (type) {
      case NBD_CMD.DISC:
        this.hangUp();
        return;
      case NBD_CMD.READ:
        this.answerData(request, offset, this.memory.subarray(offset, offset + length), true);
        return;
      case NBD_CMD.WRITE:
        this.memory.set(payload!, offset);
        break;
      case NBD_CMD.WRITE_ZEROES:
        this.memory.fill(0, offset, offset + length);
        break;
      case NBD_CMD.BLOCK_STATUS:
        this.answerStatus(request, this.#allocation(offset, length));
        return;
      case NBD_CMD.TRIM:
      case NBD_CMD.FLUSH:
        break;
      default:
        this.answer(request, NBD_ERROR.EINVAL);
        return;
    }
    this.answer(request);
  }

  #allocation(offset: number, length: number): reply.StatusDescriptor[] {
    const descriptors: reply.StatusDescriptor[] = [];
    for (let at = offset; at < offset + length; at += BLOCK) {
      const block = this.memory.subarray(at, Math.min(at + BLOCK, offset + length));
      const flags = block.every((byte) => byte === 0) ? NBD_STATE.ZERO | NBD_STATE.HOLE : 0;
      descriptors.push({ length: block.length, flags });
    }
    return descriptors;
  }
}
