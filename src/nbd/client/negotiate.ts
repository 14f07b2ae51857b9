/**
 * The client's side of the handshake as generators. They yield bytes to send, the number of bytes to read next, or the
 * switch to TLS, and return the negotiated terms. They use no sockets and no clocks; handshake.ts runs them over a
 * transport.
 *
 * TLS comes first if it is requested: nothing important is sent before it, and there is no fallback to plain text. Then
 * come structured replies, base:allocation, and NBD_OPT_GO with the block size constraints. Servers without GO get
 * NBD_OPT_EXPORT_NAME. Oldstyle servers do not negotiate.
 * doc/proto.md, "Handshake", "TLS support", "Option types".
 */
import { AgentError } from '../../base/errors.ts';
import {
  BASE_ALLOCATION,
  NBD_CLIENT,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  isErrorReply,
  optionName,
  optionReplyName,
} from '../protocol/constants.ts';
import * as wire from '../protocol/handshake.ts';
import * as options from '../protocol/options.ts';
import { displayText, protocolError } from '../protocol/wire.ts';
import { endedAfterTls, refusal, tlsRequiredButMissing } from './refusals.ts';

export type Step =
  | {
      readonly do: 'read';
      readonly length: number;
      /** The reason for the wait, as a text for messages. */
      readonly during: string;
      /** The error to throw if the server hangs up here. */
      readonly ended?: AgentError;
    }
  | { readonly do: 'send'; readonly bytes: Uint8Array }
  | { readonly do: 'tls' };

/** After a `read`, the generator gets the bytes, which are valid until the next step. After other steps it gets nothing. */
export type Negotiation<T> = Generator<Step, T, Buffer>;

export interface Peer {
  /** Name of the server in messages. */
  readonly name: string;
  readonly exportName: string;
  /** TLS is required. */
  readonly tls: boolean;
}

export interface ExportDescription extends wire.ExportInfo {
  readonly blockSizes?: options.BlockSizes;
  readonly canonicalName?: string;
  readonly description?: string;
}

export interface Negotiated extends ExportDescription {
  readonly style: 'oldstyle' | 'newstyle' | 'fixed newstyle';
  readonly encrypted: boolean;
  /** Structured replies were negotiated. */
  readonly structured: boolean;
  /** ID of base:allocation, or undefined without block status. */
  readonly allocationContext: number | undefined;
}

/** The most data of one reply. Valid replies have at most two strings. */
const MAX_REPLY_DATA = 16384;
/** The most replies to one option, and the most bytes in them. */
const MAX_REPLIES = 65536;
const MAX_TOTAL_DATA = 2 ** 24;

/** Enters the transmission phase of the export. Throws NBD_TLS, NBD_EXPORT_UNKNOWN, NBD_REFUSED, NBD_PROTOCOL. */
export function* negotiateExport(peer: Peer): Negotiation<Negotiated> {
  const opening = yield* open(peer);
  const plain = { encrypted: false, structured: false, allocationContext: undefined };
  if (opening.style === 'oldstyle') {
    if (peer.exportName !== '')
      throw new AgentError(
        'NBD_EXPORT_UNKNOWN',
        `${peer.name} speaks oldstyle NBD, which has no export names`,
        { hint: 'remove the export name from the address' },
      );
    return { ...opening.info, ...plain, style: 'oldstyle' };
  }
  if (opening.style === 'newstyle')
    return { ...(yield* enterByName(peer, opening.noZeroes)), ...plain, style: 'newstyle' };
  const ended = peer.tls ? endedAfterTls(peer) : undefined;
  const structured = (yield* ask(peer, NBD_OPT.STRUCTURED_REPLY, noData, nothingElse, ended)).ok;
  const allocationContext = structured ? yield* selectAllocation(peer) : undefined;
  const info =
    (yield* describe(peer, NBD_OPT.GO, [NBD_INFO.BLOCK_SIZE])) ??
    (yield* enterByName(peer, opening.noZeroes));
  return { ...info, style: 'fixed newstyle', encrypted: peer.tls, structured, allocationContext };
}

/** Returns the exports that the server lists. */
export function* negotiateList(peer: Peer): Negotiation<options.ListedExport[]> {
  yield* openFixed(peer, NBD_OPT.LIST);
  const exports: options.ListedExport[] = [];
  const answer = yield* ask(peer, NBD_OPT.LIST, noData, (type, data) => {
    if (type !== NBD_REP.SERVER) return false;
    exports.push(options.decodeListedExport(data));
    return true;
  });
  if (!answer.ok) throw yield* giveUp(refusal(peer, NBD_OPT.LIST, answer.type, answer.text));
  yield* abort();
  return exports;
}

/** Describes the export with NBD_OPT_INFO, without opening it. Debian's nbd-server reports a size of 0 here. */
export function* negotiateInfo(peer: Peer): Negotiation<ExportDescription> {
  yield* openFixed(peer, NBD_OPT.INFO);
  const info = yield* describe(peer, NBD_OPT.INFO, [
    NBD_INFO.BLOCK_SIZE,
    NBD_INFO.NAME,
    NBD_INFO.DESCRIPTION,
  ]);
  if (info === undefined) throw yield* giveUp(refusal(peer, NBD_OPT.INFO, NBD_REP.ERR_UNSUP, ''));
  yield* abort();
  return info;
}

type Opening =
  | { readonly style: 'oldstyle'; readonly info: wire.ExportInfo }
  | { readonly style: 'newstyle' | 'fixed newstyle'; readonly noZeroes: boolean };

/** Exchanges greeting and client flags, and starts TLS if it is required. */
function* open(peer: Peer): Negotiation<Opening> {
  const greeting = yield* read(wire.GREETING_BYTES, 'waiting for its greeting');
  if (wire.decodeGreeting(greeting) === 'oldstyle') {
    if (peer.tls) throw tlsRequiredButMissing(peer, 'it speaks oldstyle NBD');
    const rest = yield* read(wire.OLDSTYLE_REST_BYTES, 'waiting for its greeting');
    return { style: 'oldstyle', info: wire.decodeOldstyleRest(rest) };
  }
  const flags = wire.decodeNewstyleFlags(yield* read(wire.NEWSTYLE_FLAGS_BYTES, 'waiting for its greeting'));
  const fixed = (flags & NBD_HANDSHAKE.FIXED_NEWSTYLE) !== 0;
  const noZeroes = (flags & NBD_HANDSHAKE.NO_ZEROES) !== 0;
  if (peer.tls && !fixed) throw tlsRequiredButMissing(peer, 'it does not speak fixed newstyle NBD');
  const clientFlags = (fixed ? NBD_CLIENT.FIXED_NEWSTYLE : 0) | (noZeroes ? NBD_CLIENT.NO_ZEROES : 0);
  yield { do: 'send', bytes: wire.encodeClientFlags(clientFlags) };
  if (peer.tls) {
    const answer = yield* ask(peer, NBD_OPT.STARTTLS, noData);
    if (!answer.ok) {
      const why = `it answered NBD_OPT_STARTTLS with ${optionReplyName(answer.type)}`;
      throw yield* giveUp(tlsRequiredButMissing(peer, why));
    }
    yield { do: 'tls' };
  }
  return { style: fixed ? 'fixed newstyle' : 'newstyle', noZeroes };
}

function* openFixed(peer: Peer, option: number): Negotiation<void> {
  const opening = yield* open(peer);
  if (opening.style !== 'fixed newstyle')
    throw new AgentError(
      'NBD_REFUSED',
      `${peer.name} speaks ${opening.style} NBD, which has no ${optionName(option)}`,
    );
}

function* selectAllocation(peer: Peer): Negotiation<number | undefined> {
  let id: number | undefined;
  const data = options.encodeMetaContextRequest({ name: peer.exportName, queries: [BASE_ALLOCATION] });
  const answer = yield* ask(peer, NBD_OPT.SET_META_CONTEXT, data, (type, reply) => {
    if (type !== NBD_REP.META_CONTEXT) return false;
    const context = options.decodeMetaContext(reply);
    if (context.name === BASE_ALLOCATION) id = context.id;
    return true;
  });
  return answer.ok ? id : undefined;
}

/** Sends NBD_OPT_GO or NBD_OPT_INFO. Returns undefined if the server does not know the option. */
function* describe(
  peer: Peer,
  option: number,
  requests: readonly number[],
): Negotiation<ExportDescription | undefined> {
  const replies: options.InfoReply[] = [];
  const data = options.encodeInfoRequest({ name: peer.exportName, requests });
  const answer = yield* ask(peer, option, data, (type, reply) => {
    if (type !== NBD_REP.INFO) return false;
    replies.push(options.decodeInfoReply(reply));
    return true;
  });
  if (!answer.ok && answer.type === NBD_REP.ERR_UNSUP) return undefined;
  if (!answer.ok) throw yield* giveUp(refusal(peer, option, answer.type, answer.text));
  let info: wire.ExportInfo | undefined;
  const more: { -readonly [K in keyof ExportDescription]?: ExportDescription[K] } = {};
  for (const reply of replies) {
    if (reply.type === NBD_INFO.EXPORT) info = { size: reply.size, flags: reply.flags };
    if (reply.type === NBD_INFO.NAME) more.canonicalName = reply.name;
    if (reply.type === NBD_INFO.DESCRIPTION) more.description = reply.description;
    if (reply.type === NBD_INFO.BLOCK_SIZE) {
      const { minimum, preferred, maximum } = reply;
      const fault = options.blockSizeFault(reply);
      if (fault !== undefined) throw protocolError(`${peer.name}: ${fault}`);
      more.blockSizes = { minimum, preferred, maximum };
    }
  }
  if (info === undefined)
    throw protocolError(`${peer.name} accepted ${optionName(option)} without NBD_INFO_EXPORT`);
  return { ...info, ...more };
}

/** Sends NBD_OPT_EXPORT_NAME. A server that refuses the name can only hang up. */
function* enterByName(peer: Peer, noZeroes: boolean): Negotiation<wire.ExportInfo> {
  yield { do: 'send', bytes: wire.encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from(peer.exportName)) };
  const ended = new AgentError(
    'NBD_EXPORT_UNKNOWN',
    `${peer.name} closed the connection when asked for the export "${peer.exportName}"`,
    {
      hint: 'check that the export exists, that the server can open its image, and whether it requires TLS (nbds://)',
    },
  );
  const during = 'waiting for the answer to NBD_OPT_EXPORT_NAME';
  const info = wire.decodeExportNameReply(yield* read(wire.EXPORT_NAME_REPLY_BYTES, during, ended));
  if (!noZeroes) yield* read(wire.RESERVED_ZEROES, during);
  return info;
}

type Answer = { readonly ok: true } | { readonly ok: false; readonly type: number; readonly text: string };

/**
 * Sends an option and reads its replies up to the last one. `take` gets the replies before it, and returns false for an
 * unexpected reply.
 */
function* ask(
  peer: Peer,
  option: number,
  data: Uint8Array,
  take: (type: number, data: Buffer) => boolean = nothingElse,
  ended?: AgentError,
): Negotiation<Answer> {
  yield { do: 'send', bytes: wire.encodeOption(option, data) };
  const during = `waiting for the answer to ${optionName(option)}`;
  let total = 0;
  for (let replies = 0; replies < MAX_REPLIES && total <= MAX_TOTAL_DATA; replies++) {
    const header = wire.decodeOptionReplyHeader(yield* read(wire.OPTION_REPLY_HEADER_BYTES, during, ended));
    if (header.option !== option)
      throw protocolError(`${peer.name} answered ${optionName(header.option)} to ${optionName(option)}`);
    if (header.length > MAX_REPLY_DATA)
      throw protocolError(
        `${peer.name} sent ${header.length} bytes with ${optionReplyName(header.type)}, more than ${MAX_REPLY_DATA}`,
      );
    total += header.length;
    const reply = header.length === 0 ? noData : yield* read(header.length, during);
    if (header.type === NBD_REP.ACK) return { ok: true };
    if (isErrorReply(header.type)) {
      const text = displayText(reply);
      const { type } = header;
      // No other option can succeed: the server requires TLS first, or is shutting down.
      if (type === NBD_REP.ERR_TLS_REQD || type === NBD_REP.ERR_SHUTDOWN)
        throw yield* giveUp(refusal(peer, option, type, text));
      return { ok: false, type, text };
    }
    if (!take(header.type, reply))
      throw protocolError(`${peer.name} answered ${optionReplyName(header.type)} to ${optionName(option)}`);
  }
  throw protocolError(`${peer.name} sent too many replies to ${optionName(option)}`);
}

function* read(length: number, during: string, ended?: AgentError): Negotiation<Buffer> {
  return yield { do: 'read', length, during, ...(ended === undefined ? {} : { ended }) };
}

/** Ends the handshake with NBD_OPT_ABORT and returns the error, for `throw yield* giveUp(error)`. */
function* giveUp(error: AgentError): Negotiation<AgentError> {
  yield* abort();
  return error;
}

function* abort(): Negotiation<void> {
  yield { do: 'send', bytes: wire.encodeOption(NBD_OPT.ABORT) };
}

const noData = Buffer.alloc(0);

function nothingElse(): boolean {
  return false;
}
