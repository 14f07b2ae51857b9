/**
 * NBD addresses: converts URIs to plain objects, which can be sent to threads, and back. An address contains no secret:
 * passwords are refused, and keys and certificates are named by their file or directory.
 * Specified in doc/uri.md of github.com/NetworkBlockDevice/nbd; the parameters `tls-certificates` and
 * `tls-psk-file` are libnbd's (nbd_connect_uri(3)).
 */
import { isIPv6 } from 'node:net';
import { AgentError } from '../../base/errors.ts';
import { DEFAULT_PORT, MAX_STRING } from '../protocol/constants.ts';

export interface NbdTls {
  /** Certificates, or a pre-shared key. */
  readonly type: 'x509' | 'psk';
  /** Directory of ca-cert.pem. If the server requires it, also of client-cert.pem and client-key.pem. */
  readonly certificates?: string;
  /** File of `user:hexkey` lines, in the format of psktool. */
  readonly pskFile?: string;
  /** Our user name for a PSK server. Default: the login name. */
  readonly username?: string;
  /** The name that the server's certificate must have. Default: the host. */
  readonly hostname?: string;
  /** False only if the URI has `tls-verify-peer=0`. */
  readonly verifyPeer: boolean;
}

export interface NbdAddress {
  readonly transport:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
  /** Empty for the server's default export. */
  readonly exportName: string;
  /** Present: TLS is required, without a fallback to plain text. */
  readonly tls?: NbdTls;
}

/** Parses an `nbd`, `nbds`, `nbd+unix` or `nbds+unix` URI. Throws BAD_TARGET with the mistake. */
export function parseNbdUri(uri: string): NbdAddress {
  // The pattern of RFC 3986, appendix B; WHATWG's URL would rewrite paths.
  const match = /^([^:/?#]+):(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?(#.*)?$/.exec(uri);
  if (match === null) throw bad(uri, 'it is not a URI');
  const [, scheme = '', authority, path = '', query = '', fragment] = match;
  const kind = /^(nbds?)(\+unix)?$/.exec(scheme.toLowerCase());
  if (kind === null) throw bad(uri, `the scheme "${scheme}" is not one of nbd, nbds, nbd+unix, nbds+unix`);
  if (fragment !== undefined) throw bad(uri, 'it has a fragment; write %23 for a "#" in a name');
  const parameters = parseQuery(uri, query);
  const { user, host, port } = parseAuthority(uri, authority ?? '');
  const exportName = decode(uri, path.replace(/^\//, ''), 'the export name');
  if (exportName.includes('\0') || Buffer.byteLength(exportName) > MAX_STRING)
    throw bad(uri, `the export name contains a NUL or is longer than ${MAX_STRING} bytes`);
  const tls = kind[1] === 'nbds' ? parseTls(uri, parameters, user) : undefined;
  const left = tls === undefined ? [...parameters.keys()].find((key) => key.startsWith('tls-')) : undefined;
  if (left !== undefined) throw bad(uri, `${left} needs TLS, but the scheme ${scheme} has no TLS`);
  const transport = parseTransport(uri, kind[2] !== undefined, host, port, parameters);
  const unknown = [...parameters.keys()].find((key) => !known.has(key) && !key.startsWith('x-'));
  if (unknown !== undefined) throw bad(uri, `the parameter "${unknown}" is not known`);
  return { transport, exportName, ...(tls === undefined ? {} : { tls }) };
}

/** Returns the URI of an address. It contains no secrets. `parseNbdUri` returns the same address again. */
export function formatNbdUri(address: NbdAddress): string {
  const { transport, exportName, tls } = address;
  const secure = tls === undefined ? 'nbd' : 'nbds';
  // RFC 3986 allows these characters in a path, and people type them unescaped: image@2G.
  const name = encodeURIComponent(exportName).replaceAll(/%(2F|40|3A|2B|2C|3D)/g, decodeURIComponent);
  const query: string[] = [];
  const add = (key: string, value: string | undefined): void => {
    if (value !== undefined) query.push(`${key}=${encodeURIComponent(value).replaceAll('%2F', '/')}`);
  };
  if (transport.kind === 'unix') add('socket', transport.path);
  if (tls !== undefined) {
    if (tls.type === 'psk') add('tls-psk-file', tls.pskFile);
    add('tls-certificates', tls.certificates);
    add('tls-hostname', tls.hostname);
    if (!tls.verifyPeer) add('tls-verify-peer', '0');
  }
  const user = tls?.username === undefined ? '' : `${encodeURIComponent(tls.username)}@`;
  const parameters = query.length === 0 ? '' : `?${query.join('&')}`;
  if (transport.kind === 'unix') return `${secure}+unix://${user}/${name}${parameters}`;
  const host = isIPv6(transport.host) ? `[${transport.host}]` : encodeURIComponent(transport.host);
  const port = transport.port === DEFAULT_PORT ? '' : `:${transport.port}`;
  return `${secure}://${user}${host}${port}/${name}${parameters}`;
}

const known = new Set([
  'socket',
  'tls-type',
  'tls-certificates',
  'tls-psk-file',
  'tls-username',
  'tls-hostname',
  'tls-verify-peer',
]);

function parseTransport(
  uri: string,
  unix: boolean,
  host: string,
  port: string | undefined,
  parameters: ReadonlyMap<string, string>,
): NbdAddress['transport'] {
  const socket = parameters.get('socket');
  if (unix) {
    if (socket === undefined || socket === '') throw bad(uri, 'the parameter socket=PATH is missing');
    if (host !== '' || port !== undefined) throw bad(uri, 'a Unix socket has no host and no port');
    // sockaddr_un has 108 bytes, the last one a NUL; a leading NUL names an abstract socket.
    if (Buffer.byteLength(socket) > 107 || socket.indexOf('\0', 1) !== -1)
      throw bad(
        uri,
        `the socket's path has ${Buffer.byteLength(socket)} bytes (at most 107) or contains a NUL`,
      );
    return { kind: 'unix', path: socket };
  }
  if (socket !== undefined) throw bad(uri, 'socket= needs the scheme nbd+unix or nbds+unix');
  return {
    kind: 'tcp',
    host: host === '' ? 'localhost' : host,
    port: port === undefined || port === '' ? DEFAULT_PORT : parsePort(uri, port),
  };
}

function parseTls(uri: string, parameters: ReadonlyMap<string, string>, user: string | undefined): NbdTls {
  const pskFile = parameters.get('tls-psk-file');
  const certificates = parameters.get('tls-certificates');
  const type = parameters.get('tls-type') ?? (pskFile === undefined ? 'x509' : 'psk');
  if (type === 'anon') throw bad(uri, 'tls-type=anon does not authenticate the peer and is not supported');
  if (type !== 'x509' && type !== 'psk') throw bad(uri, `tls-type="${type}" is neither x509 nor psk`);
  if (type === 'psk' && pskFile === undefined) throw bad(uri, 'tls-type=psk needs tls-psk-file=PATH');
  if (type === 'x509' && pskFile !== undefined)
    throw bad(uri, 'tls-psk-file cannot be combined with tls-type=x509');
  const verify = parameters.get('tls-verify-peer') ?? '1';
  if (verify !== '0' && verify !== '1') throw bad(uri, `tls-verify-peer="${verify}" is neither 0 nor 1`);
  const username = user ?? parameters.get('tls-username');
  const hostname = parameters.get('tls-hostname');
  return {
    type,
    ...(certificates === undefined ? {} : { certificates }),
    ...(pskFile === undefined ? {} : { pskFile }),
    ...(username === undefined ? {} : { username }),
    ...(hostname === undefined ? {} : { hostname }),
    verifyPeer: verify === '1',
  };
}

function parseAuthority(
  uri: string,
  authority: string,
): { user: string | undefined; host: string; port: string | undefined } {
  const match = /^(?:([^@]*)@)?(\[[^\]]*\]|[^:[\]@]*)(?::(.*))?$/.exec(authority);
  if (match === null) throw bad(uri, `"${authority.replace(/^.*@/, '…@')}" is not HOST:PORT`);
  const [, user, host = '', port] = match;
  // The message must not repeat the address, since it contains a secret.
  if (user?.includes(':') === true)
    throw new AgentError('BAD_TARGET', 'The address of the NBD server contains a password', {
      hint: 'use USER@HOST, and name the file of the key with tls-psk-file=PATH',
    });
  const literal = /^\[(.*)\]$/.exec(host)?.[1];
  if (literal !== undefined && !isIPv6(literal)) throw bad(uri, `"${literal}" is not an IPv6 address`);
  return {
    user: user === undefined ? undefined : decode(uri, user, 'the user'),
    host: literal ?? decode(uri, host, 'the host'),
    port,
  };
}

function parseQuery(uri: string, query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const part of query === '' ? [] : query.split('&')) {
    const equals = part.indexOf('=');
    const key = decode(uri, equals < 0 ? part : part.slice(0, equals), 'a parameter').toLowerCase();
    if (parameters.has(key)) throw bad(uri, `the parameter "${key}" is given twice`);
    parameters.set(key, equals < 0 ? '' : decode(uri, part.slice(equals + 1), key));
  }
  return parameters;
}

function parsePort(uri: string, text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65535)
    throw bad(uri, `the port "${text}" is not a number from 1 to 65535`);
  return port;
}

function decode(uri: string, text: string, what: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw bad(uri, `${what} has a "%" that does not start an escaped UTF-8 byte; write %25 for "%"`);
  }
}

function bad(uri: string, why: string): AgentError {
  return new AgentError('BAD_TARGET', `"${uri}" is not the address of an NBD server: ${why}`, {
    hint: 'use nbd://HOST:PORT/EXPORT, nbds://… for TLS, or nbd+unix:///EXPORT?socket=PATH',
  });
}
