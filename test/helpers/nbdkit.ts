/**
 * Starts nbdkit (Debian package nbdkit) on a Unix socket or a free loopback port.
 *
 *     const server = await startNbdkit(['memory', '64M']);
 *     try { … server.uri … } finally { await server.stop(); }
 */
import { type NbdServerProcess, startServer } from './nbd-process.ts';

export interface NbdkitOptions {
  /** Uses a loopback port instead of a Unix socket. A number is the port of an earlier server. */
  readonly tcp?: boolean | number;
  /** Socket of an earlier server, to listen on it again. */
  readonly socket?: string;
  /**
   * Passes `--tls=require`; `uri` then begins with nbds. The parameters name the certificates or the PSK
   * file.
   */
  readonly tls?: boolean;
}

/** `parameters`: filters, plugin and its parameters, `['--filter=delay', 'memory', '64M', 'wdelay=1']`. */
export function startNbdkit(
  parameters: readonly string[],
  { tcp, socket, tls = false }: NbdkitOptions = {},
): Promise<NbdServerProcess> {
  return startServer('nbdkit', { tcp, socket, secure: tls }, (place) => [
    '--foreground',
    '--exit-with-parent',
    // nbdkit writes the file after it has bound its socket.
    ...['--pidfile', place.pidFile],
    ...(place.socket === undefined
      ? ['--ipaddr', '127.0.0.1', '--port', String(place.port)]
      : ['--unix', place.socket]),
    ...(tls ? ['--tls=require'] : []),
    ...parameters,
  ]);
}
