/**
 * An NBD server in this process, for the exports of one recovery point or image: on a Unix socket that is its owner's, or
 * on loopback, where others of this machine can connect.
 */
import { once } from 'node:events';
import { chmodSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { AgentError, errnoCode } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { ExportProvider } from '../../nbd/server/backend.ts';
import { isLoopback } from '../../nbd/server/address.ts';
import { type ServedConnection, serveConnection } from '../../nbd/server/connection.ts';
import { Wire } from '../../nbd/server/wire.ts';
import { formatNbdUri } from '../../nbd/client/uri.ts';

export type ExportAddress =
  | { readonly kind: 'unix'; readonly path: string }
  /** Port 0 lets the kernel choose. */
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

export interface ExportServerOptions {
  readonly exports: ExportProvider;
  readonly listen: ExportAddress;
  readonly log: Log;
  /** Default 16. */
  readonly maximumConnections?: number;
}

export interface ExportServer {
  /** Of the default export. */
  readonly uri: string;
  readonly connections: number;
  /** Lets the requests under way finish, and closes. */
  stop(): Promise<void>;
}

/** Throws FILE_ERROR where the address cannot be had, BAD_USAGE where it is not this machine's own. */
export async function startExportServer(options: ExportServerOptions): Promise<ExportServer> {
  const { exports, log, listen, maximumConnections = 16 } = options;
  if (listen.kind === 'tcp' && !isLoopback(listen.host))
    throw new AgentError(
      'BAD_USAGE',
      `${listen.host} can be reached from other machines, and nobody would have to prove who he is`,
      {
        hint: 'listen on 127.0.0.1 or on a Unix socket, and forward it over ssh',
      },
    );
  const connections = new Set<ServedConnection>();
  const server = createServer({ allowHalfOpen: true }, (socket: Socket) => {
    if (connections.size >= maximumConnections) {
      log.warn({ connections: connections.size }, 'connection refused: there are too many');
      socket.destroy();
      return;
    }
    socket.setNoDelay(true);
    const connection = serveConnection(new Wire(socket), { exports, log });
    connections.add(connection);
    void connection.done.then(() => connections.delete(connection));
  });
  try {
    server.listen(listen.kind === 'unix' ? { path: listen.path } : { host: listen.host, port: listen.port });
    if (listen.kind === 'unix') chmodSync(listen.path, 0o600);
    await once(server, 'listening');
  } catch (error) {
    server.close();
    const where = listen.kind === 'unix' ? listen.path : `${listen.host}:${listen.port}`;
    throw new AgentError('FILE_ERROR', `cannot listen on ${where}: ${errnoCode(error) ?? String(error)}`, {
      hint: 'choose another address',
      cause: error,
    });
  }
  const transport =
    listen.kind === 'unix'
      ? listen
      : ({ kind: 'tcp', host: listen.host, port: (server.address() as AddressInfo).port } as const);
  return {
    uri: formatNbdUri({ transport, exportName: '' }),
    get connections() {
      return connections.size;
    },
    stop: async () => {
      server.close();
      for (const connection of connections) connection.stop();
      await Promise.all([...connections].map(({ done }) => done));
      if (listen.kind === 'unix') rmSync(listen.path, { force: true });
    },
  };
}
