/**
 * Proves the TLS of dattosrv against GnuTLS's clients: libnbd (nbdcopy, nbdinfo) and QEMU, with certificates
 * on one side and on both, and with pre-shared keys. Clients without credentials get no access.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { type Dattosrv, startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { makeTlsFiles, type TlsFiles } from '../helpers/tls-files.ts';

let scratch = '';
let files: TlsFiles;
/** Files of another authority, whose client certificate must be refused. */
let strangers: TlsFiles;
before(() => {
  scratch = mkdtempSync(join(tmpdir(), 'dattosrv-tls-'));
  files = makeTlsFiles(join(scratch, 'ours'));
  strangers = makeTlsFiles(join(scratch, 'theirs'));
});
after(() => rmSync(scratch, { recursive: true, force: true }));

/** Copies in, copies out, compares. */
async function roundTrip(server: Dattosrv): Promise<void> {
  const source = join(server.directory, '.source');
  const back = join(server.directory, '.back');
  writeFileSync(source, randomBytes(8 * MiB + 5));
  await exec('nbdcopy', [source, server.uriOf(`disk@${statSync(source).size}`)]);
  await exec('nbdcopy', [server.uriOf('disk'), back]);
  await exec('cmp', [source, back]);
  await exec('cmp', [source, join(server.directory, 'disk')]);
}

function qemuImage(server: Dattosrv): string {
  return `driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port=${server.port},file.export=disk,file.tls-creds=t`;
}

async function qemuInfo(server: Dattosrv, credentials: string, allow: number[] = []): Promise<string> {
  const { stdout, stderr } = await exec(
    'qemu-img',
    ['info', '--object', `${credentials},id=t,endpoint=client`, '--image-opts', qemuImage(server)],
    { allow },
  );
  return stdout + stderr;
}

test('certificates on both sides', async (t) => {
  const server = await startDattosrv(
    t,
    ['--create', '--tls-certificates', files.directory, '--tls-verify-peer'],
    { tcp: true, uriParameters: `tls-certificates=${files.directory}` },
  );
  assert.match(server.listening, /^nbds:/);
  await roundTrip(server);
  const x509 = `tls-creds-x509,dir=${files.directory}`;
  assert.match(await qemuInfo(server, x509), /virtual size: 8 MiB/);
  await exec('qemu-io', [
    ...['--object', `${x509},id=t,endpoint=client`, '--image-opts'],
    ...['-c', 'write -P 5 1M 1M', '-c', 'read -P 5 1M 1M', qemuImage(server)],
  ]);

  // A client of another authority, one without a certificate, and one without TLS are refused.
  const mixed = join(scratch, 'mixed');
  cpSync(files.directory, mixed, { recursive: true });
  for (const name of ['client-cert.pem', 'client-key.pem'])
    cpSync(join(strangers.directory, name), join(mixed, name));
  const bare = join(scratch, 'bare');
  cpSync(files.directory, bare, { recursive: true });
  for (const name of ['client-cert.pem', 'client-key.pem']) rmSync(join(bare, name));
  for (const directory of [mixed, bare]) {
    const uri = server.uriOf('new@1M').replace(files.directory, directory);
    const { code } = await exec('nbdinfo', [uri], { allow: [1] });
    assert.equal(code, 1, directory);
  }
  const plain = await exec('nbdinfo', [server.uriOf('new@1M').replace(/^nbds/, 'nbd')], { allow: [1] });
  assert.equal(plain.code, 1);
  assert.ok(!existsSync(join(server.directory, 'new')));
  // The server continues to serve.
  assert.equal((await exec('nbdinfo', ['--size', server.uriOf('disk')])).stdout.trim(), String(8 * MiB + 5));
  assert.equal(await server.stop(), 0);
});

test('the certificate of the server alone', async (t) => {
  const server = await startDattosrv(t, ['--create', '--tls-certificates', files.directory], {
    tcp: true,
    uriParameters: `tls-certificates=${files.directory}`,
  });
  await roundTrip(server);
});

test('pre-shared keys', async (t) => {
  const server = await startDattosrv(t, ['--create', '--tls-psk', files.pskFile], {
    tcp: true,
    user: `${files.pskUser}@`,
    uriParameters: `tls-psk-file=${files.pskFile}`,
  });
  await roundTrip(server);
  const psk = (directory: string, user: string): string => `tls-creds-psk,dir=${directory},username=${user}`;
  assert.match(await qemuInfo(server, psk(files.directory, files.pskUser)), /virtual size: 8 MiB/);
  assert.match(await qemuInfo(server, psk(strangers.directory, files.pskUser), [1]), /TLS|handshake/i);
  const wrong = server.uriOf('disk').replace(files.pskFile, strangers.pskFile);
  assert.equal((await exec('nbdinfo', [wrong], { allow: [1] })).code, 1);
  const bob = join(scratch, 'bob.psk');
  writeFileSync(bob, readFileSync(files.pskFile, 'utf8').replace('alice', 'bob'), { mode: 0o600 });
  const unknown = server.uriOf('disk').replace('alice@', 'bob@').replace(files.pskFile, bob);
  assert.equal((await exec('nbdinfo', [unknown], { allow: [1] })).code, 1);
  assert.equal((await exec('nbdinfo', ['--size', server.uriOf('disk')])).stdout.trim(), String(8 * MiB + 5));
});

test('TLS over a Unix socket', async (t) => {
  const server = await startDattosrv(t, ['--create', '--tls-psk', files.pskFile], {
    user: `${files.pskUser}@`,
    uriParameters: `tls-psk-file=${files.pskFile}`,
  });
  assert.match(server.listening, /^nbds\+unix:/);
  await roundTrip(server);
});
