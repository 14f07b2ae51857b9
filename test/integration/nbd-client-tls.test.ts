/**
 * Tests TLS of the NBD client against foreign servers: certificates, pre-shared keys, and that neither can be
 * bypassed. Debian packages: nbdkit qemu-utils gnutls-bin.
 */
import assert from 'node:assert/strict';
import { chmodSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { connectNbd } from '../../src/nbd/client/connect.ts';
import { parseNbdUri } from '../../src/nbd/client/uri.ts';
import { imageIn, withQuery, withServer } from '../helpers/nbd-client.ts';
import { temporaryDirectory } from '../helpers/nbd-process.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { startQemuNbd } from '../helpers/qemu-nbd.ts';
import { makeTlsFiles } from '../helpers/tls-files.ts';

const directory = temporaryDirectory('nbd-client-tls');
chmodSync(directory, 0o755);
const tls = makeTlsFiles(join(directory, 'tls'));
const strangers = makeTlsFiles(join(directory, 'strangers'));
after(() => rmSync(directory, { recursive: true, force: true }));

const certificates = `tls-certificates=${tls.directory}`;

test('certificates are verified', async () => {
  const parameters = [`--tls-certificates=${tls.directory}`, 'memory', '16M'];
  await withServer(startNbdkit(parameters, { tcp: true, tls: true }), async (server) => {
    const target = await connectNbd(parseNbdUri(withQuery(server.uri, certificates)));
    assert.equal(target.encrypted, true);
    await target.close();
    for (const query of [
      `tls-certificates=${strangers.directory}`,
      `${certificates}&tls-hostname=elsewhere.example`,
      'x-nothing=1',
    ])
      await assert.rejects(connectNbd(parseNbdUri(withQuery(server.uri, query))), { code: 'NBD_TLS' }, query);
    const named = parseNbdUri(withQuery(server.uri, `${certificates}&tls-hostname=localhost`));
    await (await connectNbd(named)).close();
    const trusting = parseNbdUri(withQuery(server.uri, 'tls-verify-peer=0'));
    await (await connectNbd(trusting)).close();
    await assert.rejects(connectNbd(parseNbdUri(server.uri.replace('nbds', 'nbd'))), {
      code: 'NBD_TLS',
      hint: /nbds:/,
    });
  });
});

test('a server that wants a client certificate gets one', async () => {
  const parameters = ['--tls-verify-peer', `--tls-certificates=${tls.directory}`, 'memory', '16M'];
  await withServer(startNbdkit(parameters, { tls: true }), async (server) => {
    await (await connectNbd(parseNbdUri(withQuery(server.uri, certificates)))).close();
    const stranger = `tls-certificates=${strangers.directory}&tls-verify-peer=0`;
    await assert.rejects(connectNbd(parseNbdUri(withQuery(server.uri, stranger))), {
      code: 'NBD_TLS',
      hint: /client-cert/,
    });
  });
});

test('TLS with qemu-nbd, over TCP', async () => {
  const start = startQemuNbd(['--format=raw', imageIn(directory, 'qemu-tls')], {
    tcp: true,
    certificates: tls.directory,
  });
  await withServer(start, async (server) => {
    const target = await connectNbd(parseNbdUri(withQuery(server.uri, certificates)));
    const data = Buffer.alloc(8 * MiB, 'over TLS ');
    await target.write(0, data);
    await target.flush();
    assert.ok(Buffer.from(await target.read(0, data.length)).equals(data));
    await target.close();
  });
});

test('a key that both sides know is enough, and the wrong one is not', async () => {
  const parameters = [`--tls-psk=${tls.pskFile}`, 'memory', '16M'];
  await withServer(startNbdkit(parameters, { tcp: true, tls: true }), async (server) => {
    const uri = server.uri.replace('//', `//${tls.pskUser}@`);
    const target = await connectNbd(parseNbdUri(withQuery(uri, `tls-psk-file=${tls.pskFile}`)));
    assert.equal(target.encrypted, true);
    await target.write(0, Buffer.alloc(MiB, 5));
    assert.equal((await target.read(MiB - 1, 1))[0], 5);
    await target.close();
    await assert.rejects(connectNbd(parseNbdUri(withQuery(uri, `tls-psk-file=${strangers.pskFile}`))), {
      code: 'NBD_TLS',
    });
    const nobody = server.uri.replace('//', '//nobody@');
    await assert.rejects(connectNbd(parseNbdUri(withQuery(nobody, `tls-psk-file=${tls.pskFile}`))), {
      code: 'NBD_TLS',
      message: /no key for the user "nobody"/,
    });
  });
});

test('a server with a certificate is not accepted in place of one with the key', async () => {
  const parameters = [`--tls-certificates=${tls.directory}`, 'memory', '16M'];
  await withServer(startNbdkit(parameters, { tcp: true, tls: true }), async (server) => {
    const uri = withQuery(server.uri.replace('//', '//alice@'), `tls-psk-file=${tls.pskFile}`);
    await assert.rejects(connectNbd(parseNbdUri(uri)), { code: 'NBD_TLS' });
  });
});

test('the client never falls back from TLS to plain', async () => {
  await withServer(startNbdkit(['memory', '16M'], { tcp: true }), async (server) => {
    await assert.rejects(
      connectNbd(parseNbdUri(withQuery(server.uri.replace('nbd:', 'nbds:'), certificates))),
      { code: 'NBD_TLS', message: /NBD_OPT_STARTTLS/ },
    );
  });
  await withServer(startNbdkit(['--oldstyle', 'memory', '16M'], { tcp: true }), async (server) => {
    await assert.rejects(
      connectNbd(parseNbdUri(withQuery(server.uri.replace('nbd:', 'nbds:'), certificates))),
      { code: 'NBD_TLS', message: /oldstyle/ },
    );
  });
});
