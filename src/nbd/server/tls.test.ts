import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { AgentError } from '../../base/errors.ts';
import { loadTls, verifiesPeers } from './tls.ts';

const directory = mkdtempSync(join(tmpdir(), 'server-tls-'));
after(() => rmSync(directory, { recursive: true }));

test('peers are verified with keys, or with required client certificates', () => {
  assert.equal(verifiesPeers({ psk: 'keys' }), true);
  assert.equal(verifiesPeers({ certificates: 'dir', verifyPeer: true }), true);
  assert.equal(verifiesPeers({ certificates: 'dir', verifyPeer: false }), false);
});

const psk = join(directory, 'keys');
const key = '0aFF'.repeat(8);

function load(text: string): ReturnType<typeof loadTls> {
  writeFileSync(psk, text, { mode: 0o600 });
  return loadTls({ psk });
}

test('keys are read in the format of psktool, and no other lines are accepted', async () => {
  const { pskCallback } = await load(`# comment\nalice:${key}\n\nbob:${'00'.repeat(32)}\n`);
  const socket = undefined as never;
  assert.deepEqual(pskCallback?.(socket, 'alice'), Buffer.from(key, 'hex'));
  assert.equal(pskCallback(socket, 'carol'), null);
  const bad = [
    '',
    '# only\n',
    'alice',
    'alice:',
    `alice:${key}0`,
    `alice:${key}xx`,
    `:${key}`,
    `alice:${key} 11`,
  ];
  for (const text of bad) await assert.rejects(load(text), { code: 'NBD_TLS' }, text);
});

test('a key that is too short is refused, and the hint has the command for another one', async () => {
  for (const short of ['00', key.slice(2)])
    await assert.rejects(load(`alice:${key}\nbob:${short}\n`), {
      code: 'NBD_TLS',
      message: `${psk}: the key of "bob" has ${short.length / 2} bytes; at least 16 are needed`,
      hint: `Make another key: psktool -u bob -p ${psk}`,
    });
});

test('keys that other users may read, and certificates that they may change, are refused', async () => {
  await load(`alice:${key}`);
  for (const mode of [0o644, 0o640, 0o606]) {
    chmodSync(psk, mode);
    await assert.rejects(loadTls({ psk }), {
      code: 'UNSAFE_FILE',
      message: `${psk} has mode 0${mode.toString(8)}: other users may read or change this secret`,
    });
  }
  const file = (name: string) => join(directory, `server-${name}.pem`);
  for (const [certMode, keyMode, unsafe] of [
    [0o644, 0o600, undefined],
    [0o644, 0o644, 'key'],
    [0o664, 0o600, 'cert'],
  ] as const) {
    for (const [name, mode] of [
      ['cert', certMode],
      ['key', keyMode],
    ] as const) {
      writeFileSync(file(name), 'text');
      chmodSync(file(name), mode);
    }
    const loading = loadTls({ certificates: directory, verifyPeer: false });
    if (unsafe === undefined) assert.deepEqual((await loading).key, Buffer.from('text'));
    else await assert.rejects(loading, (error: AgentError) => error.message.startsWith(file(unsafe)));
  }
  rmSync(file('cert'));
});

test('missing files are named', async () => {
  await assert.rejects(loadTls({ certificates: directory, verifyPeer: false }), {
    code: 'NBD_TLS',
    message: /server-cert\.pem/,
  });
});
