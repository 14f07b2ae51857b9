/**
 * The server's side of the option negotiation, fixed newstyle only (doc/proto.md, "Fixed newstyle negotiation", "Option
 * types"). If TLS is configured, it is required (mode FORCEDTLS): before it, only NBD_OPT_STARTTLS and NBD_OPT_ABORT are
 * answered. Terms that were negotiated before TLS are discarded.
 */
import {
  BASE_ALLOCATION,
  isErrorReply,
  NBD_CLIENT,
  NBD_FLAG,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  optionName,
} from '../protocol/constants.ts';
import {
  CLIENT_FLAGS_BYTES,
  decodeClientFlags,
  decodeOptionHeader,
  encodeExportNameReply,
  encodeNewstyleGreeting,
  encodeOptionReply,
  OPTION_HEADER_BYTES,
} from '../protocol/handshake.ts';
import {
  type BlockSizes,
  decodeInfoRequest,
  decodeMetaContextRequest,
  encodeInfoReply,
  encodeListedExport,
  encodeMetaContext,
  type InfoRequest,
  type MetaContextRequest,
} from '../protocol/options.ts';
import { protocolError, readString } from '../protocol/wire.ts';
import { AgentError } from '../../base/errors.ts';
import { KiB } from '../../base/bytes.ts';
import { type ExportBackend, type ExportDescription, ExportError, type ExportProvider } from './backend.ts';
import { ClientGone, HandshakeInput } from './handshake-input.ts';
import type { Wire } from './wire.ts';

/** The most data of one option. More is answered with NBD_REP_ERR_TOO_BIG. */
const maximumOptionBytes = 128 * KiB;
/** The same before a required TLS, where only NBD_OPT_STARTTLS and NBD_OPT_ABORT have a use. */
const maximumOptionBytesInTheClear = 4 * KiB;
/** The most options of a client. A client that sends more only keeps the server busy. */
const maximumOptions = 256;
const allocationContextId = 1;

export interface HandshakeOptions {
  readonly exports: ExportProvider;
  readonly blockSizes: BlockSizes;
  /** Upgrades a plain wire to TLS; undefined if TLS is not configured. */
  readonly startTls: ((wire: Wire) => Promise<Wire>) | undefined;
}

/** The result of the negotiation, with which the transmission phase begins. */
export interface Agreement {
  readonly wire: Wire;
  readonly exportName: string;
  readonly backend: ExportBackend;
  readonly structured: boolean;
  readonly allocationContext: number | undefined;
  /** Returns the bytes that arrived after the last option. */
  readonly rest: () => Buffer;
}

/** Returns undefined if the client ended with NBD_OPT_ABORT. Throws ClientGone, NBD_PROTOCOL, NBD_TLS, ExportError. */
export async function negotiate(wire: Wire, options: HandshakeOptions): Promise<Agreement | undefined> {
  const input = new HandshakeInput(wire);
  wire.send([encodeNewstyleGreeting(NBD_HANDSHAKE.FIXED_NEWSTYLE | NBD_HANDSHAKE.NO_ZEROES)]);
  const flags = decodeClientFlags(await input.take(CLIENT_FLAGS_BYTES));
  if ((flags & ~(NBD_CLIENT.FIXED_NEWSTYLE | NBD_CLIENT.NO_ZEROES)) !== 0)
    throw protocolError(`the client sets unknown flags (0x${(flags >>> 0).toString(16)})`);
  return new Haggling(wire, input, options, (flags & NBD_CLIENT.NO_ZEROES) !== 0).run();
}

class Haggling {
  readonly #options: HandshakeOptions;
  readonly #noZeroes: boolean;
  #wire: Wire;
  #input: HandshakeInput;
  #secure = false;
  #structured = false;
  /** The export that base:allocation was selected for. */
  #allocationOf: string | undefined;
  #option = 0;

  constructor(wire: Wire, input: HandshakeInput, options: HandshakeOptions, noZeroes: boolean) {
    this.#wire = wire;
    this.#input = input;
    this.#options = options;
    this.#noZeroes = noZeroes;
  }

  async run(): Promise<Agreement | undefined> {
    for (let count = 0; count < maximumOptions; count++) {
      const { option, length } = decodeOptionHeader(await this.#input.take(OPTION_HEADER_BYTES));
      this.#option = option;
      const most = this.#mustBeSecure() ? maximumOptionBytesInTheClear : maximumOptionBytes;
      if (length > most) {
        if (option === NBD_OPT.EXPORT_NAME) throw protocolError(`an export name has ${length} bytes`);
        await this.#input.skip(length);
        this.#error(NBD_REP.ERR_TOO_BIG, `${length} bytes of data; at most ${most} are allowed`);
        await this.#taken();
        continue;
      }
      const data = await this.#input.take(length);
      if (option === NBD_OPT.ABORT) {
        this.#reply(NBD_REP.ACK);
        this.#wire.end();
        return undefined;
      }
      const agreed = await this.#answer(option, data);
      if (agreed !== undefined) return agreed;
      await this.#taken();
    }
    throw protocolError(`the client sent ${maximumOptions} options and chose no export`);
  }

  async #answer(option: number, data: Buffer): Promise<Agreement | undefined> {
    const mustBeSecure = this.#mustBeSecure();
    if (option === NBD_OPT.EXPORT_NAME) {
      if (mustBeSecure) throw new AgentError('NBD_TLS', 'the client asked for an export before TLS');
      return this.#exportName(readString(data, 'the export name'));
    }
    if (option === NBD_OPT.STARTTLS) return this.#startTls(data);
    if (mustBeSecure) {
      this.#error(NBD_REP.ERR_TLS_REQD, 'this server requires TLS');
      return undefined;
    }
    try {
      switch (option) {
        case NBD_OPT.LIST:
          await this.#list(data);
          return undefined;
        case NBD_OPT.STRUCTURED_REPLY:
          this.#structuredReply(data);
          return undefined;
        case NBD_OPT.INFO:
          await this.#info(decodeInfoRequest(data));
          return undefined;
        case NBD_OPT.GO:
          return await this.#go(decodeInfoRequest(data));
        case NBD_OPT.LIST_META_CONTEXT:
        case NBD_OPT.SET_META_CONTEXT:
          await this.#metaContext(option, decodeMetaContextRequest(data));
          return undefined;
        default:
          this.#error(NBD_REP.ERR_UNSUP, `${optionName(option)} is not supported`);
          return undefined;
      }
    } catch (error) {
      this.#refuse(error);
      return undefined;
    }
  }

  async #exportName(name: string): Promise<Agreement> {
    // This option has no error reply, so an error from here ends the connection.
    const backend = await this.#options.exports.open(name);
    const info = { size: backend.size, flags: transmissionFlags(backend, this.#structured) };
    this.#wire.send([encodeExportNameReply(info, !this.#noZeroes)]);
    return this.#agreement(name, backend);
  }

  async #startTls(data: Buffer): Promise<undefined> {
    const { startTls } = this.#options;
    if (startTls === undefined) this.#error(NBD_REP.ERR_POLICY, 'TLS is not configured on this server');
    else if (this.#secure) this.#error(NBD_REP.ERR_INVALID, 'this connection runs over TLS already');
    else if (data.length > 0) this.#error(NBD_REP.ERR_INVALID, 'NBD_OPT_STARTTLS takes no data');
    else {
      // Plain bytes after the option could be injected by an attacker.
      if (this.#input.rest().length > 0) throw protocolError('the client sent plain bytes after STARTTLS');
      this.#reply(NBD_REP.ACK);
      this.#wire = await startTls(this.#wire);
      this.#input = new HandshakeInput(this.#wire);
      this.#secure = true;
      this.#structured = false;
      this.#allocationOf = undefined;
    }
    return undefined;
  }

  async #list(data: Buffer): Promise<void> {
    if (data.length > 0) {
      this.#error(NBD_REP.ERR_INVALID, 'NBD_OPT_LIST takes no data');
      return;
    }
    for (const listed of await this.#options.exports.list()) {
      this.#reply(NBD_REP.SERVER, encodeListedExport(listed));
      await this.#taken();
    }
    this.#reply(NBD_REP.ACK);
  }

  #structuredReply(data: Buffer): void {
    if (data.length > 0) {
      this.#error(NBD_REP.ERR_INVALID, 'NBD_OPT_STRUCTURED_REPLY takes no data');
      return;
    }
    this.#structured = true;
    this.#reply(NBD_REP.ACK);
  }

  async #info(request: InfoRequest): Promise<void> {
    this.#describe(request, await this.#options.exports.describe(request.name));
    this.#reply(NBD_REP.ACK);
  }

  async #go(request: InfoRequest): Promise<Agreement> {
    const { exports } = this.#options;
    // Open first: after the description, nothing may fail before the acknowledgement.
    const backend = await exports.open(request.name);
    try {
      this.#describe(request, { ...(await exports.describe(request.name)), ...terms(backend) });
    } catch (error) {
      await backend.close();
      throw error;
    }
    this.#reply(NBD_REP.ACK);
    return this.#agreement(request.name, backend);
  }

  #describe(request: InfoRequest, description: ExportDescription): void {
    const { size, name, description: text } = description;
    const flags = transmissionFlags(description, this.#structured);
    this.#inform({ type: NBD_INFO.EXPORT, size, flags });
    this.#inform({ type: NBD_INFO.BLOCK_SIZE, ...this.#options.blockSizes });
    if (request.requests.includes(NBD_INFO.NAME)) this.#inform({ type: NBD_INFO.NAME, name });
    if (request.requests.includes(NBD_INFO.DESCRIPTION) && text !== '')
      this.#inform({ type: NBD_INFO.DESCRIPTION, description: text });
  }

  async #metaContext(option: number, request: MetaContextRequest): Promise<void> {
    const setting = option === NBD_OPT.SET_META_CONTEXT;
    // A SET request discards the earlier selection, also if it fails.
    if (setting) this.#allocationOf = undefined;
    if (!this.#structured) {
      this.#error(
        NBD_REP.ERR_INVALID,
        `${optionName(option)} is only allowed after NBD_OPT_STRUCTURED_REPLY`,
      );
      return;
    }
    await this.#options.exports.describe(request.name);
    const { queries } = request;
    const selected =
      queries.includes(BASE_ALLOCATION) || (!setting && (queries.length === 0 || queries.includes('base:')));
    if (selected) {
      const id = setting ? allocationContextId : 0;
      if (setting) this.#allocationOf = request.name;
      this.#reply(NBD_REP.META_CONTEXT, encodeMetaContext({ id, name: BASE_ALLOCATION }));
    }
    this.#reply(NBD_REP.ACK);
  }

  #agreement(exportName: string, backend: ExportBackend): Agreement {
    const input = this.#input;
    return {
      wire: this.#wire,
      exportName,
      backend,
      structured: this.#structured,
      allocationContext: this.#allocationOf === exportName ? allocationContextId : undefined,
      rest: () => input.rest(),
    };
  }

  #refuse(error: unknown): void {
    if (error instanceof ExportError) {
      const replies = {
        unknown: NBD_REP.ERR_UNKNOWN,
        policy: NBD_REP.ERR_POLICY,
        invalid: NBD_REP.ERR_INVALID,
      };
      this.#error(replies[error.reason], error.message);
    } else if (error instanceof AgentError && error.code === 'NBD_PROTOCOL')
      this.#error(NBD_REP.ERR_INVALID, error.message);
    else throw error;
  }

  #mustBeSecure(): boolean {
    return this.#options.startTls !== undefined && !this.#secure;
  }

  /** Waits until the client has read its replies, so that replies do not accumulate. Throws ClientGone. */
  async #taken(): Promise<void> {
    await this.#wire.room();
    if (this.#wire.broken) throw new ClientGone();
  }

  #inform(info: Parameters<typeof encodeInfoReply>[0]): void {
    this.#reply(NBD_REP.INFO, encodeInfoReply(info));
  }

  #error(type: number, message: string): void {
    if (!isErrorReply(type)) throw new RangeError(`${type} is not an error reply`);
    this.#reply(type, Buffer.from(message).subarray(0, 4096));
  }

  #reply(type: number, data?: Buffer): void {
    this.#wire.send([encodeOptionReply(this.#option, type, data)]);
  }
}

type Terms = Pick<ExportBackend, 'size' | 'readOnly' | 'multiConnection' | 'fastZero'>;

function terms(backend: ExportBackend): Terms {
  const { size, readOnly, multiConnection, fastZero } = backend;
  return { size, readOnly, multiConnection, fastZero };
}

function transmissionFlags(terms: Terms, structured: boolean): number {
  let flags: number = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH | NBD_FLAG.SEND_FUA | NBD_FLAG.SEND_CACHE;
  if (structured) flags |= NBD_FLAG.SEND_DF;
  if (terms.multiConnection) flags |= NBD_FLAG.CAN_MULTI_CONN;
  if (terms.readOnly) return flags | NBD_FLAG.READ_ONLY;
  flags |= NBD_FLAG.SEND_TRIM | NBD_FLAG.SEND_WRITE_ZEROES;
  return terms.fastZero ? flags | NBD_FLAG.SEND_FAST_ZERO : flags;
}
