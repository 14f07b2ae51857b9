/**
 * Starts qemu-nbd (Debian package qemu-utils) with an image on a Unix socket or a free loopback port.
 *
 *     const server = await startQemuNbd(['--format=raw', image]);
 *     try { … server.uri … } finally { await server.stop(); }
 */
import { type NbdServerProcess, startServer } from './nbd-process.ts';

export interface QemuNbdOptions {
  readonly tcp?: boolean;
  /** Directory with ca-cert.pem, server-cert.pem and server-key.pem. If given, TLS is required. */
  readonly certificates?: string;
  /** Number of simultaneous clients. Default 8. */
  readonly shared?: number;
}

/** `parameters`: options and the image, `['--format=raw', '--discard=unmap', image]`. */
export function startQemuNbd(
  parameters: readonly string[],
  { tcp, certificates, shared = 8 }: QemuNbdOptions = {},
): Promise<NbdServerProcess> {
  const tls =
    certificates === undefined
      ? []
      : [
          ...['--object', `tls-creds-x509,id=tls0,endpoint=server,dir=${certificates},verify-peer=off`],
          '--tls-creds=tls0',
        ];
  return startServer('qemu-nbd', { tcp, secure: tls.length > 0 }, (place) => [
    '--persistent',
    `--shared=${shared}`,
    // qemu-nbd writes the file after it listens.
    `--pid-file=${place.pidFile}`,
    ...(place.socket === undefined
      ? ['--bind=127.0.0.1', `--port=${String(place.port)}`]
      : [`--socket=${place.socket}`]),
    ...tls,
    ...parameters,
  ]);
}
