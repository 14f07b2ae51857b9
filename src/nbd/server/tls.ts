/**
 * TLS 1.2 and later for the server. Certificates are in a directory with the file names of nbdkit, libnbd and QEMU
 * (ca-cert.pem, server-cert.pem, server-key.pem). Pre-shared keys are in the format of GnuTLS's psktool: lines of
 * `identity:hexkey`.
 */
import { join } from 'node:path';
import { createServer, type TlsOptions } from 'node:tls';
import { AgentError } from '../../base/errors.ts';
import { readTrusted, type TrustedKind } from '../../base/trusted-file.ts';
import { minimumKeyBytes } from '../protocol/psk.ts';
import { Wire } from './wire.ts';

/** The certificates or keys to use, as plain data for worker threads. */
export type TlsSettings =
  | {
      /** Directory of the three files. */
      readonly certificates: string;
      /** Clients must present a certificate signed by ca-cert.pem. */
      readonly verifyPeer: boolean;
    }
  | {
      /** File of pre-shared keys. */
      readonly psk: string;
    };

/**
 * Cipher suites in which both sides prove that they know the key. OpenSSL does not enable those of TLS 1.2 by default.
 * TLS 1.3 accepts external keys only with SHA-256.
 */
const pskCiphers = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-PSK-CHACHA20-POLY1305',
  'DHE-PSK-AES256-GCM-SHA384',
  'DHE-PSK-AES128-GCM-SHA256',
  'ECDHE-PSK-AES128-CBC-SHA256',
  'PSK-AES256-GCM-SHA384',
  'PSK-AES128-GCM-SHA256',
];

/** Whether every client is authenticated. */
export function verifiesPeers(settings: TlsSettings): boolean {
  return 'psk' in settings || settings.verifyPeer;
}

/** Reads the files. Throws NBD_TLS for a missing file, UNSAFE_FILE if other users may read a key or change a file. */
export async function loadTls(settings: TlsSettings): Promise<TlsOptions> {
  const options: TlsOptions = { minVersion: 'TLSv1.2', handshakeTimeout: 10_000 };
  if ('psk' in settings) {
    const keys = parseKeys((await readCredential(settings.psk, 'secret')).toString('utf8'), settings.psk);
    options.pskCallback = (_socket, identity) => keys.get(identity) ?? null;
    options.ciphers = pskCiphers.join(':');
    return options;
  }
  const { certificates, verifyPeer } = settings;
  options.cert = await readCredential(join(certificates, 'server-cert.pem'), 'configuration');
  options.key = await readCredential(join(certificates, 'server-key.pem'), 'secret');
  if (verifyPeer) {
    options.ca = await readCredential(join(certificates, 'ca-cert.pem'), 'configuration');
    options.requestCert = true;
    options.rejectUnauthorized = true;
  }
  return options;
}

/** Runs the server's side of TLS over a plain wire. Rejects with NBD_TLS. */
export function acceptTls(wire: Wire, options: TlsOptions): Promise<Wire> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error | undefined): void =>
      reject(
        new AgentError('NBD_TLS', `TLS failed: ${error?.message ?? 'the client has disconnected'}`, {
          cause: error,
        }),
      );
    // Node verifies client certificates only in a server, so make a server for this one connection.
    const server = createServer(options);
    server.once('secureConnection', (socket) => {
      socket.allowHalfOpen = true;
      resolve(new Wire(socket));
    });
    server.once('tlsClientError', failed);
    server.once('error', failed);
    void wire.closed.then(() => failed(wire.failure));
    // A client that disconnects before TLS needs no answer. A half-open socket would stay until the time limit.
    wire.stream.allowHalfOpen = false;
    server.emit('connection', wire.stream);
  });
}

/** Parses lines of `identity:hex`; `#` begins a comment. */
function parseKeys(text: string, path: string): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  for (const line of text.split('\n')) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const match = /^([^:]+):((?:[0-9a-f]{2})+)\s*$/i.exec(line);
    if (match?.[1] === undefined || match[2] === undefined)
      throw new AgentError('NBD_TLS', `${path} has a line that is not "identity:hexkey"`, {
        hint: 'make the file with: psktool -u NAME -p FILE',
      });
    const key = Buffer.from(match[2], 'hex');
    if (key.length < minimumKeyBytes)
      throw new AgentError(
        'NBD_TLS',
        `${path}: the key of "${match[1]}" has ${key.length} bytes; at least ${minimumKeyBytes} are needed`,
        { hint: `Make another key: psktool -u ${match[1]} -p ${path}` },
      );
    keys.set(match[1], key);
  }
  if (keys.size === 0) throw new AgentError('NBD_TLS', `${path} contains no key`);
  return keys;
}

async function readCredential(path: string, kind: TrustedKind): Promise<Buffer> {
  try {
    return await readTrusted(path, kind);
  } catch (error) {
    if (error instanceof AgentError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new AgentError('NBD_TLS', `Cannot read ${path}: ${reason}`, { cause: error });
  }
}
