/** Changes by another pruner (one of the two was declared stale) are not damage for a prune or a check. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { memoryVault, spreadImage } from '../../../test/helpers/memory-vault.ts';
import { backUp, readBack } from '../../../test/helpers/vault-writer.ts';
import { AgentError } from '../../base/errors.ts';
import { checkVault } from '../check/check-vault.ts';
import { repairVault } from '../check/repair.ts';
import { newId } from '../ids.ts';
import { refreshIndex } from '../index/refresh.ts';
import type { PageSource } from '../maps/image-map.ts';
import { packObject } from '../packs/format.ts';
import { PartReader } from '../packs/part-reader.ts';
import { deletePoint, listPoints, putPoint } from '../points/points.ts';
import type { GetOptions, ObjectStore, StoreOptions } from '../store/object-store.ts';
import { Vault } from '../vault.ts';
import { wholeMap } from '../writing/whole-map.ts';
import { WriterSession, staleMark } from '../writing/writer-session.ts';
import { copyNeeded } from './copy.ts';
import { Marking } from './marking.ts';
import { prune } from './prune.ts';
import { listAtWork, unlockVault } from './unlock.ts';

const size = 5 * 1024 * 1024;
const hourMs = 3600 * 1000;
const living = { ownerState: () => Promise.resolve('unknown' as const) };

async function newVault() {
  const made = await memoryVault({ after });
  const { store, vault } = made;
  /** Returns the vault with a store that runs a function once before a request. */
  const watched = (hooks: {
    readonly get?: (key: string, options: GetOptions) => (() => Promise<unknown>) | undefined;
    readonly list?: (prefix: string) => (() => Promise<unknown>) | undefined;
  }): Promise<Vault> => {
    let happened = false;
    const once = async (work: (() => Promise<unknown>) | undefined): Promise<void> => {
      if (work === undefined || happened) return;
      happened = true;
      await work();
    };
    const other: ObjectStore = {
      ...store,
      get: async (key, options: GetOptions = {}) => {
        await once(hooks.get?.(key, options));
        return store.get(key, options);
      },
      list: async function* (prefix, options: StoreOptions = {}) {
        await once(hooks.list?.(prefix));
        yield* store.list(prefix, options);
      },
    };
    return Vault.open(other, vault.secrets);
  };
  return { ...made, watched };
}

const isWholePack = (key: string, { offset, suffix }: GetOptions): boolean =>
  key.startsWith('packs/') && offset === undefined && suffix === undefined;

test(
  'if another pruner deletes packs to be copied, prune fails with VAULT_LOCKED and no data is ' + 'lost',
  async () => {
    const { vault, newIndex, watched } = await newVault();
    const index = newIndex();
    const first = await backUp(vault, index, { image: spreadImage(0, 300), size });
    const second = await backUp(vault, index, { image: spreadImage(200, 300), size });
    await deletePoint(vault, first.id);
    const other = newIndex();
    const beside = async (): Promise<void> => {
      await unlockVault(vault, (await listAtWork(vault)).locks[0]!.id);
      assert.ok((await prune(vault, other, living)).copied.parts > 0);
    };
    const slow = await watched({ get: (key, options) => (isWholePack(key, options) ? beside : undefined) });
    await assert.rejects(prune(slow, index, living), { code: 'VAULT_LOCKED' });
    assert.deepEqual(await readBack(vault, newIndex(), second.devices[0]!), spreadImage(200, 300));
    const next = await prune(vault, index, living);
    assert.deepEqual(next.damaged, []);
    assert.equal((await checkVault(vault, newIndex(), { readData: true })).ok, true);
  },
);

test('a pack that is gone is distinguished from a damaged one', async () => {
  const { store, vault, newIndex } = await newVault();
  const index = newIndex();
  await backUp(vault, index, { image: spreadImage(0, 300), size });
  const packs = [...index.packs()];
  const [chunks, pages] = ['chunks', 'pages'].map((kind) => packs.find((pack) => pack.kind === kind)!);
  const keyOf = (id: string): string => `packs/${id.slice(0, 2)}/${id}`;
  store.objects.delete(keyOf(pages!.id));
  store.objects.get(keyOf(chunks!.id))!.data[100]! ^= 1;
  const ids = packs.map(({ id }) => id);
  const options = { writer: newId(), condemned: new Set(ids) };
  const copied = await copyNeeded(vault, index, ids, { has: () => true }, options);
  assert.deepEqual([copied.damaged.map(({ pack }) => pack), copied.gone], [[chunks!.id], [pages!.id]]);
});

test('an unreadable point that is gone at the second look does not stop a prune', async () => {
  const { store, vault, newIndex } = await newVault();
  const index = newIndex();
  const point = await backUp(vault, index, { image: spreadImage(0, 30), size });
  const key = `points/${newId()}`;
  const spoilt = (): void => void store.objects.set(key, { data: Buffer.from('no point'), modified: 0 });
  spoilt();
  await assert.rejects(prune(vault, index, living), { code: 'VAULT_DAMAGED', message: /cannot be read/ });
  const slow: ObjectStore = {
    ...store,
    head: (name, options) => {
      if (name === key) store.objects.delete(key);
      return store.head(name, options);
    },
  };
  const other = await Vault.open(slow, vault.secrets);
  assert.equal((await prune(other, index, living)).points, 1);
  spoilt();
  assert.equal((await checkVault(other, index)).ok, true);
  spoilt();
  assert.equal((await checkVault(vault, index)).ok, false);
  assert.deepEqual(await readBack(vault, index, point.devices[0]!), spreadImage(0, 30));
});

test('lost pages that exist again are marked with everything below them', async () => {
  const { vault, newIndex } = await newVault();
  const index = newIndex();
  const one = await backUp(vault, index, { image: spreadImage(0, 420), size });
  const two = await backUp(vault, index, { image: spreadImage(0, 421), size });
  const reader = new PartReader(vault, index);
  let isLost = true;
  let asked = 0;
  const pages: PageSource = {
    get: (name) => {
      // Every page except the roots, at the first request.
      const isRoot = [one, two].some(({ devices }) => Buffer.from(devices[0]!.root, 'hex').equals(name));
      asked++;
      return isLost && !isRoot
        ? Promise.reject(new AgentError('VAULT_CHUNK_LOST', 'moved'))
        : reader.get(name);
    },
  };
  const marking = new Marking(pages, { chunkSize: 4096, path: `${index.path}-marking` });
  after(() => marking.close());
  const unknown = await marking.mark([one, two]);
  assert.deepEqual(
    unknown.map(({ point }) => point.id),
    [one.id, two.id],
  );
  assert.deepEqual(
    (await marking.markAgain(unknown)).map(({ point }) => point.id),
    [one.id, two.id],
    'it is still lost',
  );
  isLost = false;
  assert.deepEqual(await marking.markAgain(unknown), []);
  for (const { name } of index.database.prepare('SELECT name FROM parts').all() as { name: Uint8Array }[])
    assert.ok(marking.live.has(name), 'all parts are live');
  const before = asked;
  assert.deepEqual(await marking.mark([{ ...two, id: newId() }]), []);
  assert.equal(asked, before, 'marked pages are not read again');
});

test('points that are forgotten and pruned during a check are not damage', async () => {
  const { vault, newIndex, watched } = await newVault();
  const index = newIndex();
  const first = await backUp(vault, index, { image: spreadImage(0, 300), size });
  const second = await backUp(vault, index, { image: spreadImage(500, 300), size });
  const beside = async (): Promise<void> => {
    await deletePoint(vault, first.id);
    assert.ok((await prune(vault, newIndex(), living)).deleted.packs > 0);
  };
  const isPage = (key: string, { offset }: GetOptions): boolean =>
    key.startsWith('packs/') && offset !== undefined;
  const slow = await watched({ get: (key, options) => (isPage(key, options) ? beside : undefined) });
  const checked = await checkVault(slow, index);
  assert.deepEqual(
    [checked.ok, checked.points.map(({ point, whole }) => [point, whole])],
    [true, [[second.id, true]]],
  );
});

test('a point that another one with its ID replaces during a check or a prune is not damage', async () => {
  for (const run of ['check', 'prune'] as const) {
    const { store, vault, newIndex, watched } = await newVault();
    const index = newIndex();
    const image = spreadImage(500, 300);
    const first = await backUp(vault, index, { image: spreadImage(0, 300), size });
    const second = await backUp(vault, index, { image, size });
    const beside = async (): Promise<void> => {
      for (const { id } of [first, second]) await deletePoint(vault, id);
      for (const { id, writer } of index.packs())
        if (writer === first.id) store.objects.delete(packObject(id));
      await putPoint(vault, { ...second, id: first.id });
      await store.put(`writers/${first.id}.end`, staleMark);
    };
    // Both read the pages of the maps after they have listed the points.
    const isPage = (key: string, { offset }: GetOptions): boolean =>
      key.startsWith('packs/') && offset !== undefined;
    const slow = await watched({ get: (key, options) => (isPage(key, options) ? beside : undefined) });
    if (run === 'check') assert.equal((await checkVault(slow, newIndex())).ok, true);
    else assert.deepEqual((await prune(slow, newIndex(), living)).withdrawn, []);
    const { points } = await listPoints(vault);
    assert.deepEqual(
      points.map(({ id }) => id),
      [first.id],
      run,
    );
    assert.deepEqual(await readBack(vault, newIndex(), points[0]!.devices[0]!), new Map(image), run);
  }
});

test('marks belong to the maps of a point, not only to its ID', async () => {
  const { vault, newIndex } = await newVault();
  const index = newIndex();
  const one = await backUp(vault, index, { image: spreadImage(0, 10), size });
  const two = await backUp(vault, index, { image: spreadImage(5, 10), size });
  const marking = new Marking(new PartReader(vault, index), { chunkSize: 4096, path: `${index.path}-marks` });
  after(() => marking.close());
  assert.deepEqual(await marking.mark([one]), []);
  assert.deepEqual([marking.knows([one]), marking.knows([{ ...two, id: one.id }])], [true, false]);
});

test('a damaged pack that a prune deletes during a check, with its condemned list, is not reported', async () => {
  const { store, vault, newIndex, watched, tick } = await newVault();
  const index = newIndex();
  const point = await backUp(vault, index, { image: spreadImage(0, 300), size });
  const { id } = [...index.packs()].find(({ kind }) => kind === 'chunks')!;
  store.objects.get(`packs/${id.slice(0, 2)}/${id}`)!.data[100]! ^= 1;
  assert.deepEqual((await repairVault(vault, index, living)).condemned, [id]);
  await backUp(vault, index, { image: spreadImage(0, 300), size });
  tick(25 * hourMs);
  const beside = (): Promise<unknown> => prune(vault, newIndex(), living);
  const slow = await watched({ list: (prefix) => (prefix === 'condemned/' ? beside : undefined) });
  const checked = await checkVault(slow, newIndex(), { readData: true });
  assert.deepEqual([checked.ok, checked.damagedPacks], [true, []]);
  await refreshIndex(vault, index);
  assert.deepEqual(await readBack(vault, index, point.devices[0]!), spreadImage(0, 300));
});

test(
  'a point whose packs were condemned during its backup is whole, and the next writer builds ' + 'on it',
  async (t) => {
    const { vault, newIndex } = await newVault();
    const index = newIndex();
    const image = spreadImage(0, 300);
    await deletePoint(vault, (await backUp(vault, index, { image, size })).id);
    const begin = WriterSession.begin.bind(WriterSession);
    t.after(() => (WriterSession.begin = begin));
    WriterSession.begin = async (...args) => {
      WriterSession.begin = begin;
      const session = await begin(...args);
      const { waiting } = await prune(vault, newIndex(), living);
      assert.ok(waiting.packs > 0);
      return session;
    };
    const point = await backUp(vault, index, { image, size });
    const [device] = point.devices;

    const next = await WriterSession.begin(vault, index);
    assert.equal(
      await wholeMap(vault, index, device!, next.condemned),
      false,
      'only condemned packs hold it',
    );
    assert.equal(await next.keep(device!), true);
    assert.equal(
      await wholeMap(vault, index, device!, next.condemned),
      true,
      'its condemned data was stored again',
    );
    assert.equal(await next.keep({ ...device!, root: 'ab'.repeat(32) }), false);
    await next.end();
    for (let round = 0; round < 2; round++) await prune(vault, index, living);
    assert.deepEqual(await readBack(vault, newIndex(), device!), new Map(image));
  },
);
