/**
 * Two copies of one vault, used from one machine: same ID, same keys, other packs. A writer of one copy publishes nothing
 * that references packs of the other copy. This holds even if both copies share one index, at a path that changes disks.
 */
import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { memoryVault, spreadImage } from '../../../test/helpers/memory-vault.ts';
import { backUp, readBack } from '../../../test/helpers/vault-writer.ts';
import { newKeyFileText } from '../key-material.ts';
import { openVault } from '../opening.ts';
import { listPoints } from '../points/points.ts';
import { openMemoryStore } from '../../../test/helpers/stores/memory-store.ts';
import { openDirectoryStore } from '../store/directory.ts';
import { Vault } from '../vault.ts';
import { WriterSession } from './writer-session.ts';

const size = 3000 * 4096;

test('a writer that found chunks of the other copy in the index publishes no point', async (t) => {
  const { vault: a, store, newIndex } = await memoryVault(t);
  const index = newIndex();
  await backUp(a, index, { image: spreadImage(0, 100), size });
  const copy = openMemoryStore({ objects: store.picture() });
  const b = await Vault.open(copy, a.secrets);

  const begin = WriterSession.begin.bind(WriterSession);
  WriterSession.begin = async (...args) => {
    WriterSession.begin = begin;
    const session = await begin(...args);
    // The writer of B has just updated the index. Now a writer of A stores a chunk.
    await backUp(a, index, { image: spreadImage(500, 300), size });
    return session;
  };
  t.after(() => (WriterSession.begin = begin));
  await assert.rejects(backUp(b, index, { image: spreadImage(500, 300), size }), {
    code: 'VAULT_POINT_WITHDRAWN',
    message: /not in this store/,
  });
  assert.equal((await listPoints(b)).points.length, 1);
  // The next writer of B stores the missing chunks, and so does a writer of A.
  for (const vault of [b, a, b]) {
    const point = await backUp(vault, index, { image: spreadImage(500, 300), size });
    const there = await readBack(vault, newIndex(), point.devices[0]!);
    assert.deepEqual(there, new Map(spreadImage(500, 300)));
  }
});

test(
  'a store that is restored to an earlier state during a backup gets no point that references ' +
    'missing data',
  async (t) => {
    const { vault, store, newIndex } = await memoryVault(t);
    const index = newIndex();
    await backUp(vault, index, { image: spreadImage(0, 100), size });
    const before = store.picture();
    const base = await backUp(vault, index, { image: spreadImage(1000, 100), size });
    await assert.rejects(
      backUp(vault, index, {
        image: spreadImage(1000, 200),
        size,
        base: { id: base.id, image: spreadImage(1000, 100), device: base.devices[0]! },
        onPublish: () => {
          store.objects.clear();
          for (const [key, object] of before) store.objects.set(key, object);
        },
      }),
      { code: 'VAULT_POINT_WITHDRAWN' },
    );
  },
);

test('each copy has its own index, and two paths to one directory share one', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'copies-'));
  t.after(() => rm(directory, { recursive: true }));
  const key = { kind: 'file', text: newKeyFileText() } as const;
  const [a, b, link] = ['a', 'b', 'link'].map((name) => join(directory, name)) as [string, string, string];
  await (
    await Vault.init(await openDirectoryStore(a, { create: true }), { keys: [{ material: key }] })
  ).store.close();
  await cp(a, b, { recursive: true });
  await symlink(a, link);
  const paths: string[] = [];
  for (const path of [a, b, link]) {
    const context = { vaults: {}, stateDirectory: join(directory, 'state') };
    const opened = await openVault({ kind: 'directory', path }, context, key);
    paths.push(opened.indexPath);
    await opened.vault.store.close();
  }
  assert.notEqual(paths[0], paths[1]);
  assert.equal(paths[0], paths[2]);
});
