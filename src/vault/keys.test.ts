import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AgentError, type ErrorDocument } from '../base/errors.ts';
import { type KeyMaterial, newKeyFileText } from './key-material.ts';
import { addKey, findKey, listKeys, removeKey } from './keys.ts';
import { openMemoryStore } from '../../test/helpers/stores/memory-store.ts';
import { Vault } from './vault.ts';

const cost = { N: 1024, p: 1 };
const first: KeyMaterial = { kind: 'passphrase', passphrase: 'first' };
const second: KeyMaterial = { kind: 'passphrase', passphrase: 'second' };
const file: KeyMaterial = { kind: 'file', text: newKeyFileText() };

function refused(code: ErrorDocument['code']): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof AgentError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

test('a key is added with an existing key, listed, found and removed', async () => {
  const store = openMemoryStore();
  const vault = await Vault.init(store, { keys: [{ material: first, label: 'desk' }], cost });
  await assert.rejects(addKey(vault, second, file), refused('VAULT_WRONG_KEY'));
  await assert.rejects(addKey(vault, file, second), refused('VAULT_NO_KEY'));
  const added = await addKey(vault, first, file, { label: 'safe' });
  assert.deepEqual((await Vault.open(store, file)).secrets.toMessage(), vault.secrets.toMessage());

  const list = await listKeys(vault);
  assert.deepEqual(list.slots.map(({ label, kind }) => [label, kind]).sort(), [
    ['desk', 'passphrase'],
    ['safe', 'file'],
  ]);
  assert.equal(findKey(list, 'safe'), added.id);
  assert.equal(findKey(list, added.id.slice(0, 8).toUpperCase()), added.id);
  assert.throws(() => findKey(list, 'nowhere'), refused('VAULT_NO_KEY'));
  assert.throws(() => findKey(list, ''), refused('VAULT_NO_KEY'));

  await removeKey(vault, findKey(list, 'desk'));
  await assert.rejects(Vault.open(store, first), refused('VAULT_NO_KEY'));
  await Vault.open(store, file);
  await assert.rejects(removeKey(vault, added.id), refused('VAULT_LAST_KEY'));
  await assert.rejects(removeKey(vault, 'ab'.repeat(16)), refused('VAULT_NO_KEY'));
});

test('unusable slots are skipped, reported, and can be removed', async () => {
  const store = openMemoryStore();
  const vault = await Vault.init(store, { keys: [{ material: first }], cost });
  const id = '00'.repeat(16);
  store.objects.set(`keys/${id}.json`, { data: Buffer.from('{}'), modified: 0 });
  store.objects.set('keys/readme.json', { data: Buffer.from('foreign'), modified: 0 });
  await Vault.open(store, first);
  const list = await listKeys(vault);
  assert.deepEqual(
    list.damaged.map(({ id: damaged }) => damaged),
    [id],
  );
  // An unusable slot does not count as another key.
  await assert.rejects(removeKey(vault, list.slots[0]!.id), refused('VAULT_LAST_KEY'));
  await assert.rejects(Vault.open(store, second), (error) => {
    refused('VAULT_WRONG_KEY')(error);
    return (error as AgentError).hint?.includes(id) === true;
  });
  await removeKey(vault, findKey(list, id));
  assert.equal((await listKeys(vault)).damaged.length, 0);
});

test('the slots of a vault do not open another vault in its place', async () => {
  const store = openMemoryStore();
  await Vault.init(store, { keys: [{ material: first }], cost });
  const other = openMemoryStore();
  await Vault.init(other, { keys: [{ material: second }], cost });
  store.objects.set('vault.json', other.objects.get('vault.json')!);
  await assert.rejects(Vault.open(store, first), refused('VAULT_WRONG_KEY'));
});
