/**
 * The byte stream of a connection: a TCP or Unix socket, or TLS over one. Plain sockets reuse one read buffer, so receiving
 * allocates nothing.
 */
import { once } from 'node:events';
import { type NetConnectOpts, type Socket, connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { KiB } from '../../base/bytes.ts';
import { type NbdAddress, formatNbdUri } from './uri.ts';

export interface Transport {
  /** The stream to write to and end, and its events. Received bytes come only through `receive`. */
  readonly stream: Duplex;
  /**
   * Sets the listener for the next bytes. A chunk is valid only during the call, since its memory is reused.
   */
  receive(listener: (chunk: Uint8Array) => void): void;
}

/** Returns any stream as a transport. TLS and tests use it. */
export function transportOver(stream: Duplex): Transport {
  let current: ((chunk: Uint8Array) => void) | undefined;
  return {
    stream,
    receive: (listener) => {
      if (current !== undefined) stream.removeListener('data', current);
      current = listener;
      stream.on('data', listener);
    },
  };
}

/**
 * Connects. Throws TARGET_UNREACHABLE (no server, or no answer within `timeoutMs`), CANCELLED, NO_PERMISSION.
 */
export async function openTransport(
  address: NbdAddress,
  options: { readonly signal?: AbortSignal | undefined; readonly timeoutMs: number },
): Promise<Transport> {
  const { transport, tls } = address;
  const where: NetConnectOpts =
    transport.kind === 'tcp'
      ? {
          host: transport.host,
          port: transport.port,
          noDelay: true,
          keepAlive: true,
          keepAliveInitialDelay: 10_000,
        }
      : { path: transport.path };
  let listener: (chunk: Uint8Array) => void = () => undefined;
  // TLS takes over the socket and reads from it itself.
  const onread = {
    buffer: Buffer.allocUnsafeSlow(tls === undefined ? 256 * KiB : 1),
    callback: (bytes: number, buffer: Uint8Array) => {
      listener(buffer.subarray(0, bytes));
      return true;
    },
  };
  const socket = connect(tls === undefined ? { ...where, onread } : where);
  const plain: Transport = {
    stream: socket,
    receive: (next) => {
      listener = next;
    },
  };
  await connected(socket, address, options);
  return tls === undefined ? plain : transportOver(socket);
}

async function connected(
  socket: Socket,
  address: NbdAddress,
  options: { readonly signal?: AbortSignal | undefined; readonly timeoutMs: number },
): Promise<void> {
  const late = AbortSignal.timeout(options.timeoutMs);
  const signal = options.signal === undefined ? late : AbortSignal.any([options.signal, late]);
  try {
    await once(socket, 'connect', { signal });
  } catch (error) {
    socket.destroy();
    if (options.signal?.aborted === true)
      throw new AgentError('CANCELLED', 'Cancelled while connecting', { cause: error });
    throw unreachable(address, late.aborted ? `no answer within ${options.timeoutMs} ms` : error);
  }
  // If no server listens on a port of the ephemeral range, the kernel can choose the same port for our side. TCP's
  // simultaneous open then connects the socket to itself. That also keeps the server from using its port again.
  const { localPort, remotePort, localAddress, remoteAddress } = socket;
  if (remotePort !== undefined && localPort === remotePort && localAddress === remoteAddress) {
    socket.destroy();
    throw unreachable(address, 'no server listens there');
  }
}

function unreachable(address: NbdAddress, reason: unknown): AgentError {
  const name = formatNbdUri(address);
  const code = errnoCode(reason);
  const why =
    typeof reason === 'string'
      ? reason
      : (code ?? (reason instanceof Error ? reason.message : String(reason)));
  const hint =
    code === 'EACCES'
      ? 'run as root, or give this user permission to use the socket'
      : address.transport.kind === 'unix'
        ? `start the server; its socket should be at ${address.transport.path}`
        : 'start the server there, and check host, port and firewall (a simple server: nbd-server PORT FILE)';
  return new AgentError('TARGET_UNREACHABLE', `Cannot connect to ${name}: ${why}`, { hint, cause: reason });
}
