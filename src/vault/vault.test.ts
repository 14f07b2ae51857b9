import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AgentError, type ErrorDocument } from '../base/errors.ts';
import type { KeyMaterial } from './key-material.ts';
import { newKeyFileText, newRecoveryCode } from './key-material.ts';
import { Secrets } from './secrets.ts';
import { type MemoryStore, openMemoryStore } from '../../test/helpers/stores/memory-store.ts';
import { Vault } from './vault.ts';

const cost = { N: 1024, p: 1 };
const passphrase: KeyMaterial = { kind: 'passphrase', passphrase: 'correct horse' };

function refused(code: ErrorDocument['code']): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof AgentError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

async function make(store: MemoryStore, keys: { material: KeyMaterial }[] = [{ material: passphrase }]) {
  return Vault.init(store, { keys, cost });
}

function replace(store: MemoryStore, key: string, change: (text: string) => string): void {
  const { data, modified } = store.objects.get(key)!;
  const changed = change(data.toString('utf8'));
  assert.notEqual(changed, data.toString('utf8'));
  store.objects.set(key, { data: Buffer.from(changed, 'utf8'), modified });
}

test('a vault opens with each of its keys, and with its secrets in another thread', async () => {
  const store = openMemoryStore();
  const keys: KeyMaterial[] = [
    passphrase,
    { kind: 'file', text: newKeyFileText() },
    { kind: 'recovery', code: newRecoveryCode() },
  ];
  const made = await make(
    store,
    keys.map((material) => ({ material })),
  );
  assert.equal(made.chunkSize, 65536);
  assert.equal(made.packSize, 16 * 1024 * 1024);
  const message = made.secrets.toMessage();
  for (const material of keys) {
    const opened = await Vault.open(store, material);
    assert.equal(opened.id, made.id);
    assert.deepEqual(opened.secrets.toMessage(), message);
    assert.deepEqual(opened.secrets.packKey('ab'.repeat(16)), made.secrets.packKey('ab'.repeat(16)));
  }
  const opened = await Vault.open(store, Secrets.fromMessage(structuredClone(message)));
  assert.deepEqual(opened.secrets.toMessage(), message);
});

test('a wrong key or a key of another kind opens nothing', async () => {
  const store = openMemoryStore();
  await make(store);
  await assert.rejects(
    Vault.open(store, { kind: 'passphrase', passphrase: 'incorrect horse' }),
    refused('VAULT_WRONG_KEY'),
  );
  await assert.rejects(Vault.open(store, { kind: 'file', text: newKeyFileText() }), refused('VAULT_NO_KEY'));
  await assert.rejects(Vault.open(store, { kind: 'passphrase', passphrase: '' }), refused('BAD_USAGE'));
  const other = await make(openMemoryStore());
  await assert.rejects(Vault.open(store, other.secrets), refused('VAULT_WRONG_KEY'));
});

test('a vault is created once, with valid sizes and a key', async () => {
  const store = openMemoryStore();
  for (const chunkSize of [0, 2048, 4096 * 3, 2 ** 21, 65536.5])
    await assert.rejects(
      Vault.init(store, { keys: [{ material: passphrase }], cost, chunkSize }),
      refused('BAD_USAGE'),
    );
  for (const packSize of [0, 2 ** 20 - 1, 2 ** 26 + 1])
    await assert.rejects(
      Vault.init(store, { keys: [{ material: passphrase }], cost, packSize }),
      refused('BAD_USAGE'),
    );
  await assert.rejects(Vault.init(store, { keys: [] }), refused('VAULT_NO_KEY'));
  assert.equal(store.objects.size, 0);
  await assert.rejects(Vault.open(store, passphrase), refused('VAULT_NOT_FOUND'));
  await make(store);
  await assert.rejects(make(store), refused('VAULT_EXISTS'));
  // Another process deleted vault.json alone.
  store.objects.delete('vault.json');
  store.objects.set(`packs/ab/${'ab'.repeat(16)}`, { data: Buffer.alloc(1), modified: 0 });
  await assert.rejects(make(store), refused('VAULT_EXISTS'));
});

test('if creating is interrupted before vault.json, it can be repeated', async () => {
  const cut = openMemoryStore();
  await make(cut);
  cut.objects.delete('vault.json');
  const other: KeyMaterial = { kind: 'passphrase', passphrase: 'another' };
  await make(cut, [{ material: other }]);
  await Vault.open(cut, other);
  // The leftover slot belongs to no vault.
  await assert.rejects(Vault.open(cut, passphrase), refused('VAULT_WRONG_KEY'));
});

test('if two processes create a vault at once, the one that succeeds owns it', async () => {
  const store = openMemoryStore();
  const keys: KeyMaterial[] = ['a', 'b'].map((text) => ({ kind: 'passphrase', passphrase: text }));
  const made = await Promise.allSettled(keys.map((material) => make(store, [{ material }])));
  const opened = await Promise.allSettled(keys.map((material) => Vault.open(store, material)));
  assert.deepEqual(
    opened.map(({ status }) => status),
    made.map(({ status }) => status),
  );
  assert.equal(opened.filter(({ status }) => status === 'fulfilled').length, 1);
});

test('a vault of a later version is refused and left unchanged', async () => {
  const store = openMemoryStore();
  await make(store);
  replace(store, 'vault.json', (text) => text.replace('"version": 1', '"version": 2'));
  const before = store.picture();
  await assert.rejects(Vault.open(store, passphrase), refused('VAULT_TOO_NEW'));
  await assert.rejects(make(store), refused('VAULT_EXISTS'));
  assert.deepEqual(store.picture(), before);
});

test('altered parameters are detected', async () => {
  const store = openMemoryStore();
  const vault = await make(store);
  const whole = store.picture();
  const changes: [from: RegExp, to: string, code: ErrorDocument['code']][] = [
    [/"chunk_size": 65536/, '"chunk_size": 4096', 'VAULT_DAMAGED'],
    [/"pack_size": 16777216/, '"pack_size": 1048576', 'VAULT_DAMAGED'],
    [/"chunk_size": 65536/, '"chunk_size": 65537', 'VAULT_DAMAGED'],
    [/"created": "20/, '"created": "21', 'VAULT_DAMAGED'],
    [/"mac": "[0-9a-f]{4}/, '"mac": "0000', 'VAULT_DAMAGED'],
    [/"format": "dattod vault"/, '"format": "other"', 'VAULT_DAMAGED'],
    [/"id": "[0-9a-f]{4}/, '"id": "0000', 'VAULT_WRONG_KEY'],
    [/}\s*$/, '', 'VAULT_DAMAGED'],
    [/"version": 1/, '"version": "1"', 'VAULT_DAMAGED'],
  ];
  for (const [from, to, code] of changes) {
    store.objects.set('vault.json', whole.get('vault.json')!);
    replace(store, 'vault.json', (text) => text.replace(from, to));
    await assert.rejects(Vault.open(store, passphrase), refused(code));
    await assert.rejects(Vault.open(store, vault.secrets), refused(code));
  }
  // Fields of later versions are ignored.
  store.objects.set('vault.json', whole.get('vault.json')!);
  replace(store, 'vault.json', (text) => text.replace('{', '{ "later": [1],'));
  await Vault.open(store, passphrase);
});
