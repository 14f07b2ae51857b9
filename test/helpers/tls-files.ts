/**
 * Makes a certificate authority, server and client certificates, and a PSK file, with certtool and psktool
 * (Debian package gnutls-bin). The names are those that qemu, libnbd and nbdkit expect in a directory.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface TlsFiles {
  /** Holds ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem, client-key.pem. */
  readonly directory: string;
  /** psktool's format, `user:hexkey`, one line for `pskUser`. */
  readonly pskFile: string;
  readonly pskUser: string;
}

/**
 * Fills `directory`, which is made if it is missing. The server certificate is for localhost and 127.0.0.1.
 */
export function makeTlsFiles(directory: string): TlsFiles {
  mkdirSync(directory, { recursive: true });
  certificate(directory, 'ca', ['cn = "test authority"', 'ca', 'cert_signing_key']);
  certificate(directory, 'server', [
    'cn = "localhost"',
    'dns_name = "localhost"',
    'ip_address = "127.0.0.1"',
    'tls_www_server',
    'encryption_key',
    'signing_key',
  ]);
  certificate(directory, 'client', ['cn = "client"', 'tls_www_client', 'encryption_key', 'signing_key']);
  const pskFile = join(directory, 'keys.psk');
  execFileSync('psktool', ['-u', 'alice', '-p', pskFile], { stdio: 'ignore' });
  chmodSync(pskFile, 0o600);
  if (!readFileSync(pskFile, 'utf8').startsWith('alice:')) throw new Error('psktool wrote no key for alice');
  return { directory, pskFile, pskUser: 'alice' };
}

function certificate(directory: string, name: string, template: readonly string[]): void {
  const key = join(directory, `${name}-key.pem`);
  const templateFile = join(directory, `${name}.template`);
  writeFileSync(templateFile, [...template, 'expiration_days = 2'].join('\n'));
  certtool(['--generate-privkey', '--key-type=ecdsa', '--outfile', key]);
  const sign =
    name === 'ca'
      ? ['--generate-self-signed']
      : [
          '--generate-certificate',
          ...['--load-ca-certificate', join(directory, 'ca-cert.pem')],
          ...['--load-ca-privkey', join(directory, 'ca-key.pem')],
        ];
  certtool([
    ...sign,
    ...['--load-privkey', key, '--template', templateFile],
    ...['--outfile', join(directory, `${name}-cert.pem`)],
  ]);
}

function certtool(parameters: readonly string[]): void {
  execFileSync('certtool', parameters, { stdio: 'ignore' });
}
