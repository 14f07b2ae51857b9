/**
 * Starts nbdkit (Debian package nbdkit) on a Unix socket or a free loopback port.
 *
 *     const server = await startNbdkit(['memory', '64M']);
 *     try { … server.uri … } finally { await server.stop(); }
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  type NbdServerProcess,
  freePort,
  readPid,
  serverProcess,
  spawnServer,
  temporaryDirectory,
} from './nbd-process.ts';

export interface NbdkitOptions {
  /** A loopback port instead of a Unix socket; a number to come back at the port of an earlier server. */
  readonly tcp?: boolean | number;
  /** Socket of an earlier server, to come back there. */
  readonly socket?: string;
  /** `--tls=require`: `uri` then says nbds. The parameters name the certificates or the PSK file. */
  readonly tls?: boolean;
}

/** `parameters`: filters, plugin and what they take, `['--filter=delay', 'memory', '64M', 'wdelay=1']`. */
export async function startNbdkit(
  parameters: readonly string[],
  options: NbdkitOptions = {},
): Promise<NbdServerProcess> {
  const directory = temporaryDirectory('nbdkit');
  try {
    const { tcp = false } = options;
    const port = tcp === false ? undefined : tcp === true ? await freePort() : tcp;
    const socket = port === undefined ? (options.socket ?? join(directory, 'socket')) : undefined;
    const pidFile = join(directory, 'pid');
    const where =
      socket === undefined ? ['--ipaddr', '127.0.0.1', '--port', String(port)] : ['--unix', socket];
    const tls = options.tls === true ? ['--tls=require'] : [];
    const server = spawnServer('nbdkit', [
      '--foreground',
      '--exit-with-parent',
      '--pidfile',
      pidFile,
      ...where,
      ...tls,
      ...parameters,
    ]);
    // nbdkit writes its pid file after it has bound its socket.
    await server.ready(() => readPid(pidFile) !== undefined);
    const { stderr } = server;
    return serverProcess({
      port,
      socket,
      pid: readPid(pidFile)!,
      directory,
      stderr,
      secure: options.tls === true,
    });
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}
