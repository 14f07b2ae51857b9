/**
 * TLS for a connection, with verified certificates or a pre-shared key (PSK). See doc/proto.md, "TLS support". The file
 * names are those of libnbd, qemu and nbdkit.
 */
import { once } from 'node:events';
import { isIP } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import * as tls from 'node:tls';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { readTrusted, type TrustedKind } from '../../base/trusted-file.ts';
import { minimumKeyBytes } from '../protocol/psk.ts';
import { type Transport, transportOver } from './transport.ts';
import { type NbdAddress, type NbdTls, formatNbdUri } from './uri.ts';

/** Returns the options of `tls.connect`. Reads the files here, before anything is sent. */
export async function tlsOptions(address: NbdAddress, settings: NbdTls): Promise<tls.ConnectionOptions> {
  const common: tls.ConnectionOptions = { minVersion: 'TLSv1.2', rejectUnauthorized: settings.verifyPeer };
  if (settings.type === 'psk') return { ...common, ...(await pskOptions(settings)) };
  const host = address.transport.kind === 'tcp' ? address.transport.host : 'localhost';
  const hostname = settings.hostname ?? host;
  // Server name indication accepts only names. For addresses, the certificate is checked against `host`.
  const identity = isIP(hostname) === 0 ? { servername: hostname } : { host: hostname };
  if (settings.certificates === undefined)
    return { ...common, ...identity, ca: [...tls.getCACertificates(), ...tls.getCACertificates('system')] };
  const ca = await pem(settings.certificates, 'ca-cert.pem');
  const cert = await pem(settings.certificates, 'client-cert.pem');
  const key = await pem(settings.certificates, 'client-key.pem', 'secret');
  const crl = await pem(settings.certificates, 'ca-crl.pem');
  if (ca === undefined && settings.verifyPeer)
    throw new AgentError('NBD_TLS', `There is no ca-cert.pem in ${settings.certificates}`, {
      hint: "put the CA's certificate there; client-cert.pem and client-key.pem are optional",
    });
  return {
    ...common,
    ...identity,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    ...(crl === undefined ? {} : { crl }),
  };
}

/** Upgrades the stream to TLS. Throws NBD_TLS if the handshake fails or the peer's identity is wrong. */
export async function secure(
  transport: Transport,
  address: NbdAddress,
  options: tls.ConnectionOptions,
  signal: AbortSignal,
): Promise<Transport> {
  const socket = tls.connect({ ...options, socket: transport.stream });
  try {
    await once(socket, 'secureConnect', { signal });
  } catch (error) {
    socket.destroy();
    throw failed(address, error);
  }
  return transportOver(socket);
}

async function pskOptions(settings: NbdTls): Promise<tls.ConnectionOptions> {
  const identity = settings.username ?? userInfo().username;
  const file = settings.pskFile!;
  let text: string;
  try {
    text = (await readTrusted(file, 'secret')).toString('utf8');
  } catch (error) {
    if (error instanceof AgentError) throw error;
    throw new AgentError('NBD_TLS', `Cannot read the keys in ${file}: ${errnoCode(error) ?? String(error)}`, {
      cause: error,
    });
  }
  const line = text.split('\n').find((entry) => entry.startsWith(`${identity}:`));
  const hexKey = line?.slice(identity.length + 1).trim();
  if (hexKey === undefined || !/^(?:[0-9a-f]{2})+$/i.test(hexKey))
    throw new AgentError('NBD_TLS', `${file} has no key for the user "${identity}"`, {
      hint: `make one with: psktool -u ${identity} -p ${file}; or name the user in the address: nbds://USER@HOST`,
    });
  const psk = Buffer.from(hexKey, 'hex');
  if (psk.length < minimumKeyBytes)
    throw new AgentError(
      'NBD_TLS',
      `${file}: the key of "${identity}" has ${psk.length} bytes; at least ${minimumKeyBytes} are needed`,
      { hint: `Make another key for both sides: psktool -u ${identity} -p ${file}` },
    );
  return {
    ...pskCiphers,
    pskCallback: () => ({ identity, psk }),
    // A server that knows the key sends no certificate. A server that sends one has not proven the key.
    checkServerIdentity: (_host, certificate) =>
      Object.keys(certificate).length === 0
        ? undefined
        : new Error('the server sent a certificate instead of proving that it knows the key'),
  };
}

/**
 * The cipher suites for PSK. In TLS 1.3, OpenSSL offers an external PSK only with SHA-256 suites. The others are suites of
 * TLS 1.2 with forward secrecy.
 */
const pskCiphers = {
  ciphers: [
    'TLS_AES_128_GCM_SHA256',
    'ECDHE-PSK-CHACHA20-POLY1305',
    'DHE-PSK-AES256-GCM-SHA384',
    'DHE-PSK-CHACHA20-POLY1305',
    'DHE-PSK-AES128-GCM-SHA256',
  ].join(':'),
};

async function pem(
  directory: string,
  name: string,
  kind: TrustedKind = 'configuration',
): Promise<Buffer | undefined> {
  try {
    return await readTrusted(join(directory, name), kind);
  } catch (error) {
    if (error instanceof AgentError) throw error;
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw new AgentError(
      'NBD_TLS',
      `Cannot read ${join(directory, name)}: ${errnoCode(error) ?? String(error)}`,
      { cause: error },
    );
  }
}

function failed(address: NbdAddress, error: unknown): AgentError {
  const name = formatNbdUri(address);
  if (error instanceof Error && error.name === 'AbortError')
    return new AgentError('NBD_CONNECTION_LOST', `${name} did not finish the TLS handshake in time`, {
      cause: error,
    });
  const why = error instanceof Error ? error.message : String(error);
  const hint =
    address.tls?.type === 'psk'
      ? 'check that user and key are the same on both sides'
      : 'check ca-cert.pem (tls-certificates=DIRECTORY), the name in the server certificate (tls-hostname=NAME), and the client certificate if the server requires one';
  return new AgentError('NBD_TLS', `TLS with ${name} failed: ${why}`, { hint, cause: error });
}
