/** The scripted NBD server of the client's unit tests on a Unix socket, for clients in threads of their own. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type Socket, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Script, ScriptedServer } from './scripted-nbd-server.ts';
import { atEnd, type EndingTest } from './cleanup.ts';

export interface ScriptedListener {
  readonly uri: string;
  /** Connections accepted so far. */
  readonly connections: number;
  /** Ends all current connections. */
  cut(): void;
}

/**
 * `script` returns the script of the connection with this number, from 1. Undefined refuses the connection.
 */
export async function listenScripted(
  t: EndingTest,
  script: (connection: number) => Script | undefined,
): Promise<ScriptedListener> {
  const directory = mkdtempSync(join(tmpdir(), 'scripted-'));
  const path = join(directory, 'socket');
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    const found = script(connections);
    if (found === undefined) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    new ScriptedServer(found, socket);
  });
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  server.listen(path);
  await once(server, 'listening');
  atEnd(t, async () => {
    cut();
    server.close();
    await once(server, 'close');
    rmSync(directory, { recursive: true, force: true });
  });
  return {
    uri: `nbd+unix:///?socket=${path}`,
    get connections() {
      return connections;
    },
    cut,
  };
}
