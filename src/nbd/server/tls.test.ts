import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { loadTls, verifiesPeers } from './tls.ts';

const directory = mkdtempSync(join(tmpdir(), 'server-tls-'));
after(() => rmSync(directory, { recursive: true }));

test('peers are verified by keys, or by certificates that are asked for', () => {
  assert.equal(verifiesPeers({ psk: 'keys' }), true);
  assert.equal(verifiesPeers({ certificates: 'dir', verifyPeer: true }), true);
  assert.equal(verifiesPeers({ certificates: 'dir', verifyPeer: false }), false);
});

test('keys are read as psktool writes them, and nothing else is taken for a key', () => {
  const load = (text: string) => {
    const psk = join(directory, 'keys');
    writeFileSync(psk, text);
    return loadTls({ psk });
  };
  const { pskCallback } = load('# comment\nalice:0aFF\n\nbob:00\n');
  const socket = undefined as never;
  assert.deepEqual(pskCallback?.(socket, 'alice'), Buffer.from([0x0a, 0xff]));
  assert.equal(pskCallback(socket, 'carol'), null);
  for (const bad of ['', '# only\n', 'alice', 'alice:', 'alice:0', 'alice:xx', ':00', 'alice:00 11'])
    assert.throws(() => load(bad), { code: 'NBD_TLS' }, bad);
});

test('missing files are named', () => {
  assert.throws(() => loadTls({ certificates: directory, verifyPeer: false }), {
    code: 'NBD_TLS',
    message: /server-cert\.pem/,
  });
});
