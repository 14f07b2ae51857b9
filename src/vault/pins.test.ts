import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { newId } from './ids.ts';
import { newKeyFileText } from './key-material.ts';
import { openVault } from './opening.ts';
import { expectSameVault, rememberVault } from './pins.ts';
import { openDirectoryStore } from './store/directory.ts';
import { Vault } from './vault.ts';

function stateDirectory(t: { after(hook: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'pins-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

test('a place is bound to the vault that was seen there, and to no other place', async (t) => {
  const state = stateDirectory(t);
  const [one, other] = [newId(), newId()];
  await expectSameVault(state, 'vault:/a', one);
  await rememberVault(state, 'vault:/a', one);
  await expectSameVault(state, 'vault:/a', one);
  await expectSameVault(state, 'vault:/b', other);
  await assert.rejects(expectSameVault(state, 'vault:/a', other), {
    code: 'VAULT_EXCHANGED',
    message: new RegExp(`${other}.*${one}`),
    hint: /vault-places\/[0-9a-f]{16}\.json/,
  });
  await rememberVault(state, 'vault:/a', other);
  await expectSameVault(state, 'vault:/a', other);
});

test('a file that makes no sense binds nothing', async (t) => {
  const state = stateDirectory(t);
  await rememberVault(state, 'vault:/a', newId());
  const [name] = readdirSync(join(state, 'vault-places')) as [string];
  for (const text of ['', '{}', 'null', '{"id":"short","seen":"x"}']) {
    writeFileSync(join(state, 'vault-places', name), text);
    await expectSameVault(state, 'vault:/a', newId());
  }
});

test('a vault in the place of another one is not opened, though the key fits', async (t) => {
  const state = stateDirectory(t);
  const key = { kind: 'file', text: newKeyFileText() } as const;
  const place = join(state, 'vault');
  const make = async (): Promise<void> => {
    const store = await openDirectoryStore(place, { create: true });
    await Vault.init(store, { keys: [{ material: key }] });
  };
  const open = async (): Promise<void> => {
    const context = { vaults: {}, stateDirectory: join(state, 'state') };
    const { vault } = await openVault({ kind: 'directory', path: place }, context, key);
    await vault.store.close();
  };
  await make();
  await open();
  await rename(place, join(state, 'aside'));
  await make();
  await assert.rejects(open(), { code: 'VAULT_EXCHANGED' });
  await rm(place, { recursive: true });
  await rename(join(state, 'aside'), place);
  await open();
});
