/**
 * An NBD server in this process for the exports of one recovery point or image. It listens on a Unix socket that only the
 * owner can use, or on loopback, where every process of this machine can connect.
 */
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { AgentError } from '../../base/errors.ts';
import { listenOn } from '../../base/listen.ts';
import type { Log } from '../../base/log.ts';
import { isLoopback } from '../../base/loopback.ts';
import type { ExportProvider } from '../../nbd/server/backend.ts';
import { type TcpAddress, resolveAddress } from '../../nbd/server/address.ts';
import { Admission } from '../../nbd/server/admission.ts';
import { type ServedConnection, serveConnection } from '../../nbd/server/connection.ts';
import { MemoryBudget } from '../../nbd/server/memory-budget.ts';
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
  /** URI of the default export. */
  readonly uri: string;
  readonly connections: number;
  /** Finishes the requests in progress and closes all connections. */
  stop(): Promise<void>;
}

/** Throws FILE_ERROR or FILE_EXISTS if the address cannot be used, BAD_USAGE if other machines can reach it. */
export async function startExportServer(options: ExportServerOptions): Promise<ExportServer> {
  const { exports, log, listen, maximumConnections = 16 } = options;
  const where = listen.kind === 'unix' ? { path: listen.path } : await ownAddress(listen);
  const connections = new Map<number, ServedConnection>();
  const admission = new Admission<number>(maximumConnections);
  const budget = new MemoryBudget();
  let next = 0;
  const server = createServer({ allowHalfOpen: true }, (socket: Socket) => {
    const id = next++;
    const admitted = admission.arrive(id, socket.remoteAddress ?? '');
    if (admitted === 'refused') {
      log.warn(
        { connections: maximumConnections },
        'connection refused: the limit of connections is reached',
      );
      socket.destroy();
      return;
    }
    if (admitted.drop !== undefined)
      connections
        .get(admitted.drop)
        ?.drop('dropped to make room for a new client: too many are still negotiating');
    socket.setNoDelay(true);
    const connection = serveConnection(new Wire(socket), {
      ...{ exports, log, budget },
      entered: () => admission.enter(id),
    });
    connections.set(id, connection);
    void connection.done.then(() => {
      connections.delete(id);
      admission.left(id);
    });
  });
  await listenOn(server, where);
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
      for (const connection of connections.values()) connection.stop();
      await Promise.all([...connections.values()].map(({ done }) => done));
    },
  };
}

async function ownAddress(address: { readonly host: string; readonly port: number }): Promise<TcpAddress> {
  const found = await resolveAddress(address);
  if (!isLoopback(found.host))
    throw new AgentError(
      'BAD_USAGE',
      `Other machines can reach ${found.host}, and the export has no authentication`,
      { hint: 'listen on 127.0.0.1 or on a Unix socket, and forward it with ssh' },
    );
  return found;
}
