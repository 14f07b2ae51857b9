import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test from 'node:test';
import { indexPath, packIds, storeParts, testIndex, testVault } from '../../../test/helpers/vault-parts.ts';
import { faultyStore, nth } from '../../../test/helpers/stores/faulty-store.ts';
import type { ObjectStore, StoredObject } from '../store/object-store.ts';
import { packObject } from '../packs/format.ts';
import { refreshIndex } from './refresh.ts';

const chunks = (count: number): Buffer[] => Array.from({ length: count }, () => randomBytes(500));

test('an index that lags catches up with all changes; a new index is filled', async (t) => {
  const vault = testVault();
  const [ours, theirs] = [testIndex(t, vault), testIndex(t, vault)];
  const first = await storeParts(vault, ours, chunks(50));
  const pages = await storeParts(vault, ours, chunks(5), { kind: 'pages' });
  let told: readonly number[] = [];
  const refreshed = await refreshIndex(vault, theirs, { progress: (...numbers) => (told = numbers) });
  assert.deepEqual([refreshed, told], [{ added: 2, dropped: 0, damaged: [] }, [2, 2]]);
  for (const name of [...first, ...pages]) assert.deepEqual(theirs.lookup(name), ours.lookup(name));
  assert.deepEqual(theirs.stats(), ours.stats());

  const [gone] = packIds(vault);
  await vault.store.delete(packObject(gone!));
  const second = await storeParts(vault, ours, chunks(5));
  assert.deepEqual(await refreshIndex(vault, theirs), { added: 1, dropped: 1, damaged: [] });
  assert.ok(!theirs.has(first[0]!) && theirs.has(second[0]!) && theirs.has(pages[0]!));
  assert.deepEqual(await refreshIndex(vault, ours), { added: 0, dropped: 1, damaged: [] });
  assert.deepEqual(await refreshIndex(vault, ours), { added: 0, dropped: 0, damaged: [] });
});

test('many packs are listed, read in parallel, and added', async (t) => {
  const vault = testVault();
  const ours = testIndex(t, vault);
  for (let i = 0; i < 60; i++) await storeParts(vault, ours, chunks(2));
  const theirs = testIndex(t, vault);
  const progress: number[] = [];
  const { added } = await refreshIndex(vault, theirs, { progress: (done) => progress.push(done) });
  assert.equal(added, 60);
  assert.deepEqual(
    progress,
    Array.from({ length: 60 }, (_, i) => i + 1),
  );
  for (const id of packIds(vault)) assert.ok(theirs.pack(id) !== undefined);
});

test('damaged packs are reported and left out, foreign objects are skipped', async (t) => {
  const vault = testVault();
  const ours = testIndex(t, vault);
  await storeParts(vault, ours, chunks(3));
  const names = await storeParts(vault, ours, chunks(3));
  const [, broken] = packIds(vault) as [string, string];
  const { data } = vault.memory.objects.get(packObject(broken))!;
  vault.memory.objects.set(packObject(broken), { data: data.subarray(0, -7), modified: 0 });
  await vault.store.put('packs/00/readme', Buffer.from('hello'));
  await vault.store.put(`packs/${broken}`, Buffer.from('hello'));
  const theirs = testIndex(t, vault);
  const { added, damaged } = await refreshIndex(vault, theirs);
  assert.equal(added, 1);
  assert.deepEqual(
    damaged.map(({ pack }) => pack),
    [broken],
  );
  assert.match(damaged[0]!.reason, /does not end like a pack/);
  // An index that knew the whole pack sees that the size differs.
  const after = await refreshIndex(vault, ours);
  assert.deepEqual([after.added, after.dropped, after.damaged.length], [0, 1, 1]);
  assert.ok(!ours.has(names[0]!));
});

/** Runs a function in the middle of a listing: after it was made, before it is returned. */
function duringList(action: () => Promise<unknown>): (inner: ObjectStore) => ObjectStore {
  return (inner) => {
    const list = async function* (prefix: string): AsyncGenerator<StoredObject> {
      const all: StoredObject[] = [];
      for await (const stored of inner.list(prefix)) all.push(stored);
      await action();
      yield* all;
    };
    return Object.assign(Object.create(inner) as ObjectStore, { list });
  };
}

test('a pack that is added during the listing does not count as gone', async (t) => {
  const vault = testVault();
  const path = indexPath(t);
  const [ours, theirs] = [testIndex(t, vault, path), testIndex(t, vault, path)];
  await storeParts(vault, ours, chunks(3));
  let late: Buffer[] = [];
  const listed = {
    ...vault,
    store: duringList(async () => (late = await storeParts(vault, theirs, chunks(3))))(vault.store),
  };
  assert.deepEqual(await refreshIndex(listed, ours), { added: 0, dropped: 0, damaged: [] });
  assert.ok(ours.has(late[0]!));
});

test('a pack that is deleted after the listing is skipped', async (t) => {
  const vault = testVault();
  await storeParts(vault, testIndex(t, vault), chunks(3));
  const [id] = packIds(vault);
  const listed = { ...vault, store: duringList(() => vault.store.delete(packObject(id!)))(vault.store) };
  assert.deepEqual(await refreshIndex(listed, testIndex(t, vault)), { added: 0, dropped: 0, damaged: [] });
});

test('a refresh that fails keeps the packs that it has added, and the next one continues', async (t) => {
  const vault = testVault();
  const ours = testIndex(t, vault);
  for (let i = 0; i < 30; i++) await storeParts(vault, ours, chunks(2));
  const theirs = testIndex(t, vault);
  const store = faultyStore(vault.store, { fate: nth(20, { kind: 'fail', happened: false }, 'get') });
  await assert.rejects(refreshIndex({ ...vault, store }, theirs), { code: 'VAULT_UNREACHABLE' });
  const { packs } = theirs.stats();
  assert.ok(packs > 0 && packs < 30);
  assert.equal((await refreshIndex({ ...vault, store }, theirs)).added, 30 - packs);
});

test('one refresh waits for another, and can be cancelled while it waits', async (t) => {
  const vault = testVault();
  const path = indexPath(t);
  const [ours, theirs] = [testIndex(t, vault, path), testIndex(t, vault, path)];
  await storeParts(vault, testIndex(t, vault), chunks(3));
  const events: string[] = [];
  const gate = Promise.withResolvers<undefined>();
  const begun = Promise.withResolvers<undefined>();
  const listed = {
    ...vault,
    store: duringList(() => {
      begun.resolve(undefined);
      return gate.promise;
    })(vault.store),
  };
  const first = refreshIndex(listed, ours).then(({ added }) => events.push(`first added ${added}`));
  await begun.promise;
  const cancelled = new AbortController();
  const third = refreshIndex(vault, theirs, { signal: cancelled.signal });
  const second = refreshIndex(vault, theirs).then(({ added }) => events.push(`second added ${added}`));
  cancelled.abort();
  await assert.rejects(third, { name: 'AbortError' });
  gate.resolve(undefined);
  await Promise.all([first, second]);
  assert.deepEqual(events, ['first added 1', 'second added 0']);
});
