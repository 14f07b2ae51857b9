import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readConfig } from './config.ts';
import { newId } from './ids.ts';
import { type KeyMaterial, newKeyFileText } from './key-material.ts';
import { openVault } from './opening.ts';
import { expectSameVault, rememberVault } from './pins.ts';
import { openDirectoryStore } from './store/directory.ts';
import { Vault } from './vault.ts';

function stateDirectory(t: { after(hook: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'pins-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

test('a location is bound to the vault that was seen there', async (t) => {
  const state = stateDirectory(t);
  const [one, other] = [newId(), newId()];
  await expectSameVault(state, 'vault:/a', one);
  await rememberVault(state, 'vault:/a', one);
  await expectSameVault(state, 'vault:/a', one);
  await expectSameVault(state, 'vault:/b', other);
  await assert.rejects(expectSameVault(state, 'vault:/a', other), {
    code: 'VAULT_EXCHANGED',
    message: new RegExp(`${other}.*${one}`),
    hint: new RegExp(`vault info --vault vault:/a --accept-vault ${other}`),
  });
  // Disks that take turns at one mount point.
  await rememberVault(state, 'vault:/a', other);
  await rememberVault(state, 'vault:/a', one);
  for (const id of [other, one]) await expectSameVault(state, 'vault:/a', id);
  const third = newId();
  await assert.rejects(expectSameVault(state, 'vault:/a', third), {
    message: new RegExp(`${third}.*${one} since .* and ${other} since`),
  });
});

test('a file of an earlier version is read and extended', async (t) => {
  const state = stateDirectory(t);
  const [one, other] = [newId(), newId()];
  await rememberVault(state, 'vault:/a', one);
  const [name] = readdirSync(join(state, 'vault-places')) as [string];
  const path = join(state, 'vault-places', name);
  const early = { format: 1, location: 'vault:/a', id: one, seen: '2026-01-01T00:00:00.000Z' };
  assert.deepEqual(Object.keys(JSON.parse(readFileSync(path, 'utf8')) as object), Object.keys(early));
  for (const more of [{}, { others: 'x' }, { others: [null, { id: 'short', seen: 'x' }] }]) {
    writeFileSync(path, JSON.stringify({ ...early, ...more }));
    await expectSameVault(state, 'vault:/a', one);
    await assert.rejects(expectSameVault(state, 'vault:/a', other), { code: 'VAULT_EXCHANGED' });
    await rememberVault(state, 'vault:/a', other);
    for (const id of [other, one]) await expectSameVault(state, 'vault:/a', id);
  }
});

test('an invalid file binds nothing', async (t) => {
  const state = stateDirectory(t);
  await rememberVault(state, 'vault:/a', newId());
  const [name] = readdirSync(join(state, 'vault-places')) as [string];
  for (const text of ['', '{}', 'null', '{"id":"short","seen":"x"}']) {
    writeFileSync(join(state, 'vault-places', name), text);
    await expectSameVault(state, 'vault:/a', newId());
  }
});

test('a vault that replaced another one is not opened, even if the key fits', async (t) => {
  const state = stateDirectory(t);
  const key = { kind: 'file', text: newKeyFileText() } as const;
  const place = join(state, 'vault');
  const make = async (): Promise<void> => {
    const store = await openDirectoryStore(place, { create: true });
    await Vault.init(store, { keys: [{ material: key }] });
  };
  const open = async (accept?: string, material: KeyMaterial = key): Promise<string> => {
    const context = { vaults: {}, stateDirectory: join(state, 'state') };
    const { vault } = await openVault({ kind: 'directory', path: place }, context, material, { accept });
    await vault.store.close();
    return vault.id;
  };
  await make();
  await open();
  await rename(place, join(state, 'aside'));
  await make();
  await assert.rejects(open(), { code: 'VAULT_EXCHANGED' });
  await assert.rejects(open(newId()), { code: 'VAULT_EXCHANGED' });
  // The vault is accepted by its ID if a key opens it.
  const { id } = await readConfig(await openDirectoryStore(place));
  const wrong = { kind: 'file', text: newKeyFileText() } as const;
  await assert.rejects(open(id, wrong), { code: 'VAULT_WRONG_KEY' });
  await assert.rejects(open(), { code: 'VAULT_EXCHANGED' });
  assert.equal(await open(id), id);
  assert.equal(await open(), id);
  await rm(place, { recursive: true });
  await rename(join(state, 'aside'), place);
  await open();
});
