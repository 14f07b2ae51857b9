/**
 * A TCP proxy on loopback that forwards bytes, counts them, and resets or stalls its connections if a test
 * requests it. It stands for a network that fails at a moment of the test's choice.
 */
import { once } from 'node:events';
import { type AddressInfo, type Socket, connect, createServer } from 'node:net';
import { atEnd, type EndingTest } from './cleanup.ts';

export interface TcpProxy {
  readonly port: number;
  /** Bytes forwarded to the server so far. */
  readonly sent: number;
  readonly connections: number;
  /** Resolves when this number of bytes in total has gone to the server. */
  whenSent(bytes: number): Promise<void>;
  /** Resets all current connections. */
  cut(): void;
  /** Forwards nothing more in either direction, but still accepts connections, until `stall(false)`. */
  stall(on: boolean): void;
}

export async function startTcpProxy(t: EndingTest, target: number): Promise<TcpProxy> {
  const pairs = new Set<readonly [Socket, Socket]>();
  let waiters: { readonly bytes: number; readonly resolve: () => void }[] = [];
  let sent = 0;
  let connections = 0;
  let stalled = false;

  const server = createServer((client) => {
    connections++;
    const upstream = connect(target, '127.0.0.1');
    const pair = [client, upstream] as const;
    pairs.add(pair);
    client.on('data', (chunk: Buffer) => {
      sent += chunk.length;
      waiters = waiters.filter(({ bytes, resolve }) => {
        if (bytes <= sent) resolve();
        return bytes > sent;
      });
    });
    for (const [from, to] of [pair, [upstream, client] as const]) {
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        to.destroy();
        pairs.delete(pair);
      });
      if (stalled) from.pause();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  const cut = (): void => {
    for (const pair of pairs) for (const socket of pair) socket.resetAndDestroy();
  };
  atEnd(t, async () => {
    server.close();
    cut();
    await once(server, 'close');
  });
  return {
    port: (server.address() as AddressInfo).port,
    get sent() {
      return sent;
    },
    get connections() {
      return connections;
    },
    whenSent: (bytes) =>
      new Promise((resolve) => {
        if (sent >= bytes) resolve();
        else waiters.push({ bytes, resolve });
      }),
    cut,
    stall: (on) => {
      stalled = on;
      for (const pair of pairs) for (const socket of pair) socket[on ? 'pause' : 'resume']();
    },
  };
}
