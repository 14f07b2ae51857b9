/**
 * The entry of the client: connects to a server and opens an export as a `Target`, or lists and describes exports.
 */
import type { Log } from '../../base/log.ts';
import { AgentError } from '../../base/errors.ts';
import { transmissionFlagNames } from '../protocol/constants.ts';
import type { ListedExport } from '../protocol/options.ts';
import { Channel } from './channel.ts';
import { type HandshakeResult, runHandshake } from './handshake.ts';
import {
  type ExportDescription,
  type Negotiation,
  type Peer,
  negotiateExport,
  negotiateInfo,
  negotiateList,
} from './negotiate.ts';
import { nbdUserHint } from './refusals.ts';
import { NbdTarget } from './target.ts';
import { secure, tlsOptions } from './tls.ts';
import { type Transport, openTransport } from './transport.ts';
import { type NbdAddress, formatNbdUri } from './uri.ts';

export interface ConnectOptions {
  /** Aborts the attempt, and later the connection with all outstanding requests (CANCELLED). */
  readonly signal?: AbortSignal | undefined;
  /**
   * Longest time without progress while requests are outstanding, milliseconds. Default 60 s. The limit is 10 times as long
   * while a flush, zero or trim is outstanding. A single request may take 30 times as long.
   */
  readonly timeoutMs?: number;
  /** Time limit for connecting, and again for the handshake, milliseconds. Default 15 s, at most `timeoutMs`. */
  readonly connectTimeoutMs?: number;
  readonly log?: Log;
}

/**
 * Connects and enters the transmission phase. Throws TARGET_UNREACHABLE, NBD_TLS, NBD_EXPORT_UNKNOWN, NBD_REFUSED,
 * NBD_PROTOCOL, NBD_CONNECTION_LOST, TARGET_TOO_SMALL (an export of 0 bytes), CANCELLED.
 */
export async function connectNbd(address: NbdAddress, options: ConnectOptions = {}): Promise<NbdTarget> {
  const { signal, log } = options;
  const { value: negotiated, transport, takeRest } = await converse(address, options, negotiateExport);
  return openTarget(address, transport, takeRest, negotiated, { signal, log, timeoutMs: options.timeoutMs });
}

/** Returns the exports that the server lists. Ignores `address.exportName`. @internal Only tests need it so far. */
export async function listExports(
  address: NbdAddress,
  options: ConnectOptions = {},
): Promise<ListedExport[]> {
  return politely(await converse(address, options, negotiateList));
}

/**
 * Returns the answer to NBD_OPT_INFO. Debian's nbd-server reports a size of 0 here; `connectNbd` has the right one.
 * @internal Only tests need it so far.
 */
export async function describeExport(
  address: NbdAddress,
  options: ConnectOptions = {},
): Promise<ExportDescription> {
  return politely(await converse(address, options, negotiateInfo));
}

/** Returns a target over a stream that has entered the transmission phase. */
export function openTarget(
  address: NbdAddress,
  transport: Transport,
  takeRest: () => Buffer,
  negotiated: NbdTarget['negotiated'],
  options: {
    readonly signal?: AbortSignal | undefined;
    readonly timeoutMs?: number | undefined;
    readonly log?: Log | undefined;
  } = {},
): NbdTarget {
  const name = formatNbdUri(address);
  const { timeoutMs = defaultTimeoutMs, log, signal } = options;
  const channel = new Channel(transport, takeRest, {
    name,
    structured: negotiated.structured,
    allocationContext: negotiated.allocationContext,
    timeoutMs,
    slowTimeoutMs: 10 * timeoutMs,
    requestTimeoutMs: 30 * timeoutMs,
    log,
  });
  const target = new NbdTarget(channel, negotiated, address, name);
  if (negotiated.size === 0) {
    target.destroy();
    throw new AgentError('TARGET_TOO_SMALL', `${name} has 0 bytes`, { hint: nbdUserHint });
  }
  const cancel = (): void => target.destroy(new AgentError('CANCELLED', `Cancelled while using ${name}`));
  signal?.addEventListener('abort', cancel, { once: true });
  transport.stream.once('close', () => signal?.removeEventListener('abort', cancel));
  if (signal?.aborted === true) cancel();
  log?.debug(
    {
      target: name,
      style: negotiated.style,
      encrypted: negotiated.encrypted,
      structured: negotiated.structured,
      blockSizes: negotiated.blockSizes,
      size: negotiated.size,
      flags: transmissionFlagNames(negotiated.flags),
    },
    'NBD export opened',
  );
  return target;
}

async function converse<T>(
  address: NbdAddress,
  options: ConnectOptions,
  negotiate: (peer: Peer) => Negotiation<T>,
): Promise<HandshakeResult<T>> {
  const { signal, timeoutMs = defaultTimeoutMs } = options;
  const connectTimeoutMs = options.connectTimeoutMs ?? Math.min(timeoutMs, 15_000);
  if (signal?.aborted === true) throw new AgentError('CANCELLED', 'Cancelled while connecting');
  const secrets = address.tls === undefined ? undefined : await tlsOptions(address, address.tls);
  const transport = await openTransport(address, { signal, timeoutMs: connectTimeoutMs });
  const name = formatNbdUri(address);
  const peer = { name, exportName: address.exportName, tls: address.tls !== undefined };
  return runHandshake(transport, negotiate(peer), {
    name,
    timeoutMs: connectTimeoutMs,
    signal,
    upgrade: secrets === undefined ? undefined : (plain, stop) => secure(plain, address, secrets, stop),
  });
}

/** Ends the connection cleanly and returns the answer. */
function politely<T>(result: HandshakeResult<T>): T {
  const { stream } = result.transport;
  result.transport.receive(() => undefined);
  stream.end(() => stream.destroy());
  return result.value;
}

const defaultTimeoutMs = 60_000;
