/**
 * Starts qemu-nbd (Debian package qemu-utils) with an image on a Unix socket or a free loopback port.
 *
 *     const server = await startQemuNbd(['--format=raw', image]);
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

export interface QemuNbdOptions {
  readonly tcp?: boolean;
  /** Directory with ca-cert.pem, server-cert.pem and server-key.pem: TLS is then required. */
  readonly certificates?: string;
  /** Clients at once; default 8. */
  readonly shared?: number;
}

/** `parameters`: options and the image, `['--format=raw', '--discard=unmap', image]`. */
export async function startQemuNbd(
  parameters: readonly string[],
  options: QemuNbdOptions = {},
): Promise<NbdServerProcess> {
  const directory = temporaryDirectory('qemu-nbd');
  try {
    const port = options.tcp === true ? await freePort() : undefined;
    const socket = port === undefined ? join(directory, 'socket') : undefined;
    const pidFile = join(directory, 'pid');
    const where =
      socket === undefined ? ['--bind=127.0.0.1', `--port=${String(port)}`] : [`--socket=${socket}`];
    const tls =
      options.certificates === undefined
        ? []
        : [
            '--object',
            `tls-creds-x509,id=tls0,endpoint=server,dir=${options.certificates},verify-peer=off`,
            '--tls-creds=tls0',
          ];
    const server = spawnServer('qemu-nbd', [
      '--persistent',
      `--shared=${options.shared ?? 8}`,
      `--pid-file=${pidFile}`,
      ...where,
      ...tls,
      ...parameters,
    ]);
    // qemu-nbd writes its pid file after it listens.
    await server.ready(() => readPid(pidFile) !== undefined);
    return serverProcess({
      port,
      socket,
      pid: readPid(pidFile)!,
      directory,
      stderr: server.stderr,
      secure: tls.length > 0,
    });
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}
