/**
 * The location of a vault as the user writes it:
 *
 *     vault:/abs/path                                a directory
 *     vault:NAME                                     settings of the daemon by that name
 *     vault+s3://ENDPOINT[:PORT]/BUCKET[/PREFIX]     an S3 bucket over https
 *     vault+s3+http://…                              over http: to loopback, or if it is allowed explicitly
 *
 * It never contains a secret: credentials come from settings, the environment or AWS's files.
 */
import { posix } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { isLoopback } from '../../base/loopback.ts';

export interface DirectoryLocation {
  readonly kind: 'directory';
  /** Absolute, without a slash at its end. */
  readonly path: string;
}

export interface S3Location {
  readonly kind: 's3';
  /** `https://host`, `http://host:port`. */
  readonly endpoint: string;
  readonly bucket: string;
  /** Empty, or segments joined by slashes, without a slash at either end. */
  readonly prefix: string;
}

export interface NamedLocation {
  readonly kind: 'named';
  readonly name: string;
}

/** A location that can be opened. */
export type StoreLocation = DirectoryLocation | S3Location;
export type VaultLocation = StoreLocation | NamedLocation;

const HINT =
  'write vault:/path/of/a/directory, vault:NAME of one in the configuration, or vault+s3://HOST[:PORT]/BUCKET[/PREFIX]';

/** Returns true if a target's address means a vault, even if it is malformed. */
export function isVaultLocation(text: string): boolean {
  return /^vault[:+]/.test(text);
}

/** Throws BAD_TARGET. */
export function parseVaultLocation(text: string): VaultLocation {
  const s3 = /^vault\+s3(\+https?)?:\/\//.exec(text);
  if (s3 !== null) return parseS3(text, s3[1] === '+http' ? 'http' : 'https', text.slice(s3[0].length));
  if (text.startsWith('vault:/')) return parseDirectory(text, text.slice('vault:'.length));
  const name = /^vault:([a-z0-9][a-z0-9_-]*)$/.exec(text)?.[1];
  if (name !== undefined) return { kind: 'named', name };
  throw bad(text, 'it must be a path, a name (a-z, 0-9, _ and -) or a bucket');
}

/** The inverse of `parseVaultLocation`. */
export function formatVaultLocation(location: VaultLocation): string {
  switch (location.kind) {
    case 'directory':
      return `vault:${location.path}`;
    case 'named':
      return `vault:${location.name}`;
    case 's3': {
      const { protocol, host } = new URL(location.endpoint);
      const scheme = protocol === 'http:' ? 'vault+s3+http' : 'vault+s3';
      return [
        `${scheme}://${host}`,
        location.bucket,
        ...(location.prefix === '' ? [] : [location.prefix]),
      ].join('/');
    }
  }
}

/** Returns true for the URL of an endpoint on this machine: localhost or a loopback address. */
export function isOnThisMachine(endpoint: string): boolean {
  const { hostname } = new URL(endpoint);
  return hostname === 'localhost' || isLoopback(hostname.replace(/^\[|\]$/g, ''));
}

function parseDirectory(text: string, written: string): DirectoryLocation {
  if (written.includes('\0')) throw bad(text, 'its path holds a zero byte');
  const path = posix.normalize(written).replace(/(?<=.)\/$/, '');
  if (path === '/' || path === '//') throw bad(text, 'a vault is a directory of its own, not /');
  return { kind: 'directory', path };
}

function parseS3(text: string, scheme: 'http' | 'https', rest: string): S3Location {
  const slash = rest.indexOf('/');
  const authority = slash < 0 ? rest : rest.slice(0, slash);
  if (authority.includes('@'))
    throw new AgentError('BAD_TARGET', 'The address of the vault contains a user or a password', {
      hint: 'give the access key and its secret in the settings, the environment or ~/.aws/credentials',
    });
  if (/[?#]/.test(rest)) throw bad(text, 'it must not have a part after ? or #');
  const [bucket = '', ...prefix] = (slash < 0 ? '' : rest.slice(slash + 1)).replace(/\/$/, '').split('/');
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket))
    throw bad(text, `"${bucket}" is not a bucket name (3 to 63 of a-z, 0-9, dot and -)`);
  const wrong = prefix.find((segment) => !/^[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(segment));
  if (wrong !== undefined || prefix.join('/').length > 500)
    throw bad(text, `the prefix has the part "${wrong ?? '…'}" (allowed: A-Z, a-z, 0-9, dot, _ and -)`);
  return { kind: 's3', endpoint: endpointOf(text, scheme, authority), bucket, prefix: prefix.join('/') };
}

function endpointOf(text: string, scheme: 'http' | 'https', authority: string): string {
  const plain = /^([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?$/.test(authority);
  const url = plain ? URL.parse(`${scheme}://${authority}`) : null;
  if (url === null) throw bad(text, `"${authority}" must be HOST or HOST:PORT`);
  return url.origin;
}

function bad(text: string, why: string): AgentError {
  return new AgentError('BAD_TARGET', `"${text}" is not the address of a vault: ${why}`, { hint: HINT });
}
