import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import { memoryVault, spreadImage } from '../../../test/helpers/memory-vault.ts';
import { backUp, readBack } from '../../../test/helpers/vault-writer.ts';
import { AgentError } from '../../base/errors.ts';
import { deletePoint, listPoints, protectPoint } from '../points/points.ts';
import { Vault } from '../vault.ts';
import { WriterSession } from '../writing/writer-session.ts';
import { PrunerLock } from './lock.ts';
import { type PruneOptions, prune } from './prune.ts';
import { dataLength } from '../store/object-store.ts';
import { listAtWork, unlockVault } from './unlock.ts';

const size = 5 * 1024 * 1024;
const dayMs = 24 * 3600 * 1000;

async function newVault() {
  const made = await memoryVault({ after });
  return { ...made, index: made.newIndex() };
}

function packs(store: { objects: ReadonlyMap<string, unknown> }): string[] {
  return [...store.objects.keys()].filter((key) => key.startsWith('packs/'));
}

const living: PruneOptions = { ownerState: () => Promise.resolve('unknown') };

test('unused data is deleted and live data stays, also without an index', async () => {
  const { store, vault, index, newIndex } = await newVault();
  const first = await backUp(vault, index, { image: spreadImage(0, 300), size });
  const second = await backUp(vault, index, { image: spreadImage(200, 300), size });
  assert.equal(packs(store).length, 4);
  await deletePoint(vault, first.id);
  const plan = await prune(vault, index, { dryRun: true });
  assert.equal(plan.deleted.packs, 2, 'the first point, whose chunks are live in part, and its pages');
  assert.equal(packs(store).length, 4);
  const result = await prune(vault, index);
  assert.equal(result.deleted.packs, 2);
  assert.equal(result.deleted.bytes, plan.deleted.bytes);
  assert.deepEqual(result.copied.parts, 100);
  assert.equal(packs(store).length, 3);
  assert.deepEqual(await readBack(vault, newIndex(), second.devices[0]!), spreadImage(200, 300));
  const again = await prune(vault, index);
  assert.deepEqual([again.deleted.packs, again.copied.parts], [0, 0]);
  await deletePoint(vault, second.id);
  await prune(vault, index);
  assert.equal(packs(store).length, 0);
});

test('prune waits for a writer that started before, and copies the data that it references', async () => {
  const { store, vault, index, newIndex } = await newVault();
  const first = await backUp(vault, index, { image: spreadImage(0, 300), size });
  const writerIndex = newIndex();
  const gate = Promise.withResolvers<undefined>();
  const began = Promise.withResolvers<undefined>();
  const slow = { ...store, get: store.get.bind(store) };
  slow.put = async (key, data, options) => {
    if (key.startsWith('points/')) {
      began.resolve(undefined);
      await gate.promise;
    }
    await store.put(key, data, options);
  };
  const other = await Vault.open(slow, vault.secrets);
  const writing = backUp(other, writerIndex, { image: spreadImage(0, 300), size });
  await began.promise;
  await deletePoint(vault, first.id);
  const waiting = await prune(vault, index, living);
  assert.equal(waiting.deleted.packs, 0);
  assert.equal(waiting.waiting.packs, 2);
  assert.equal(waiting.waiting.writers.length, 1);
  gate.resolve(undefined);
  const second = await writing;
  const result = await prune(vault, index, living);
  assert.equal(result.deleted.packs, 2);
  assert.equal(result.copied.parts, 302);
  assert.deepEqual(await readBack(vault, newIndex(), second.devices[0]!), spreadImage(0, 300));
});

test('a writer whose process is gone is declared stale; one of unknown state after a day', async () => {
  const { vault, index, tick } = await newVault();
  const owner = { host: 'h', machine: 'm', boot: 'b', pid: 1, start_time: 1 };
  const session = await WriterSession.begin(vault, index, { owner });
  session.abandon();
  assert.deepEqual((await prune(vault, index, living)).dead, []);
  const gone = await prune(vault, index, { dryRun: true, ownerState: () => Promise.resolve('gone') });
  assert.deepEqual(
    gone.dead.map(({ id }) => id),
    [session.id],
  );
  tick(dayMs + 1);
  const old = await prune(vault, index, living);
  assert.deepEqual(
    old.dead.map(({ id }) => id),
    [session.id],
  );
  assert.deepEqual((await prune(vault, index, living)).dead, []);
});

test('only one prune runs at a time; a stale lock is removed, also by unlock', async () => {
  const { vault, index } = await newVault();
  const owner = { host: 'h', machine: 'm', boot: 'b', pid: 77, start_time: 1 };
  const lock = await PrunerLock.take(vault, { what: 'prune', owner });
  await assert.rejects(() => prune(vault, index, living), {
    code: 'VAULT_LOCKED',
    message: /process 77 of h/,
  });
  const { locks } = await listAtWork(vault);
  assert.equal(locks[0]?.id, lock.id);
  await unlockVault(vault, lock.id.slice(0, 6));
  await prune(vault, index, living);
  await assert.rejects(() => lock.ensureHeld(), { code: 'VAULT_LOCKED' });
  await PrunerLock.take(vault, { what: 'prune', owner });
  await prune(vault, index, { ownerState: () => Promise.resolve('gone') });
});

test('a pack whose put takes effect a second time is still condemned, and is deleted again', async () => {
  const { store, vault, index, newIndex, tick } = await newVault();
  const first = await backUp(vault, index, { image: spreadImage(0, 20), size });
  const [key = ''] = packs(store);
  const late = store.objects.get(key)!;
  await deletePoint(vault, first.id);
  await prune(vault, index);
  assert.deepEqual(packs(store), []);
  store.objects.set(key, late);
  const second = await backUp(vault, newIndex(), { image: spreadImage(0, 20), size });
  assert.equal(packs(store).length, 3, 'no point references it');
  await prune(vault, index);
  assert.equal(store.objects.has(key), false);
  assert.deepEqual(await readBack(vault, newIndex(), second.devices[0]!), spreadImage(0, 20));
  tick(dayMs + 1);
  await prune(vault, index);
  assert.deepEqual(
    [...store.objects.keys()].filter((each) => each.startsWith('condemned/')),
    [],
  );
});

test('a point that lands after its writer was declared stale is removed if it is not whole', async () => {
  const { store, vault, index, newIndex } = await newVault();
  let late: (() => Promise<void>) | undefined;
  const other = await Vault.open(
    {
      ...store,
      put: async (key, data, options) => {
        if (!key.startsWith('points/')) return store.put(key, data, options);
        late = () => store.put(key, data);
        throw new AgentError('VAULT_UNREACHABLE', 'timed out');
      },
    },
    vault.secrets,
  );
  await assert.rejects(() => backUp(other, newIndex(), { image: spreadImage(0, 20), size }), {
    code: 'VAULT_UNREACHABLE',
  });
  const kept = await prune(vault, index, living);
  assert.equal(kept.deleted.packs, 0, 'the point may still appear');
  const gone = await prune(vault, index, { ownerState: () => Promise.resolve('gone') });
  assert.equal(gone.deleted.packs, 2);
  await late?.();
  const result = await prune(vault, index, living);
  assert.equal(result.withdrawn.length, 1);
  assert.deepEqual((await listPoints(vault)).points, []);
});

test('checks and protections of a deleted point are deleted', async () => {
  const { store, vault, index } = await newVault();
  const point = await backUp(vault, index, { image: spreadImage(0, 3), size });
  await protectPoint(vault, point.id);
  await store.delete(`points/${point.id}`);
  const { tidied } = await prune(vault, index);
  assert.deepEqual([tidied?.orphans, tidied?.writers], [1, 1]);
  await prune(vault, index);
  assert.deepEqual([...store.objects.keys()].map((key) => key.split('/')[0]).sort(), [
    'condemned',
    'condemned',
    'keys',
    'vault.json',
  ]);
});

test('if a writer ends between the scan of the points and the list, no data is lost', async () => {
  const { store, vault, index, newIndex } = await newVault();
  const first = await backUp(vault, index, { image: spreadImage(0, 20), size });
  const gate = Promise.withResolvers<undefined>();
  const began = Promise.withResolvers<undefined>();
  const gated: typeof store.put = async (key, data, options) => {
    if (key.startsWith('points/')) {
      began.resolve(undefined);
      await gate.promise;
    }
    await store.put(key, data, options);
  };
  const other = await Vault.open({ ...store, put: gated }, vault.secrets);
  const writing = backUp(other, newIndex(), { image: spreadImage(0, 20), size });
  await began.promise;
  await deletePoint(vault, first.id);
  const watching: typeof store.put = async (key, data, options) => {
    if (/^condemned\/[0-9a-f]+$/.test(key)) {
      gate.resolve(undefined);
      await writing;
    }
    await store.put(key, data, options);
  };
  const pruning = await Vault.open({ ...store, put: watching }, vault.secrets);
  const result = await prune(pruning, index, living);
  assert.deepEqual([result.deleted.packs, result.copied.parts, result.waiting.packs], [2, 22, 0]);
  const second = await writing;
  assert.deepEqual(await readBack(vault, newIndex(), second.devices[0]!), spreadImage(0, 20));
});

for (const [what, statement] of [
  ['lacks the parts of a pack', 'DELETE FROM parts WHERE pack = (SELECT min(number) FROM packs)'],
  ['names other packs', 'UPDATE parts SET pack = (SELECT max(number) + min(number) FROM packs) - pack'],
  ['has an altered pack', 'UPDATE packs SET created = created + 1'],
  ['has other lengths', 'UPDATE parts SET encoded = encoded + 1'],
] as const)
  test(`an index that ${what} deletes no live data`, async () => {
    const { vault, index, newIndex } = await newVault();
    const point = await backUp(vault, index, { image: spreadImage(0, 300), size });
    index.database.exec(statement);
    const { deleted } = await prune(vault, index, living);
    assert.equal(deleted.packs, 0);
    assert.deepEqual(await readBack(vault, newIndex(), point.devices[0]!), spreadImage(0, 300));
    assert.deepEqual(await readBack(vault, index, point.devices[0]!), spreadImage(0, 300));
  });

test('a writer and a lock from the future are stale one day after the clock was corrected', async () => {
  const { vault, index, tick } = await newVault();
  const years = 365 * dayMs;
  tick(30 * years);
  const writer = await WriterSession.begin(vault, index);
  const lock = await PrunerLock.take(vault, { what: 'prune' });
  writer.abandon();
  tick(-30 * years);
  const locked = { code: 'VAULT_LOCKED' };
  await assert.rejects(prune(vault, index, living), locked);
  tick(dayMs / 2);
  await assert.rejects(prune(vault, index, living), locked);
  tick(dayMs);
  // The lock is gone. This prune saw the writer for the first time.
  const first = await prune(vault, index, living);
  assert.deepEqual(first.dead, []);
  tick(dayMs / 2);
  assert.deepEqual((await prune(vault, index, living)).dead, []);
  tick(dayMs);
  const last = await prune(vault, index, living);
  assert.deepEqual(
    last.dead.map(({ id }) => id),
    [writer.id],
  );
  await lock.release();
});

test('the reserved room allows to copy a pack that is larger than the free room', async () => {
  const { store, vault, index, newIndex } = await newVault();
  const image = spreadImage(0, 250, () => randomBytes(4096));
  const half = new Map([...image].filter(([chunk]) => chunk % 2 === 0));
  const first = await backUp(vault, index, { image, size });
  const second = await backUp(vault, index, { image: half, size });
  await deletePoint(vault, first.id);
  const used = (): number => [...store.objects.values()].reduce((sum, { data }) => sum + data.length, 0);
  const free = 100_000;
  const kept = vault.packSize + 1024 * 1024;
  let reserve = kept;
  let releases = 0;
  const capacity = used() + reserve + free;
  const full = await Vault.open(
    {
      ...store,
      put: async (key, data, options) => {
        if (used() + reserve + dataLength(data) > capacity) throw new AgentError('VAULT_FULL', 'full');
        await store.put(key, data, options);
      },
      room: {
        keep: (bytes) => {
          if (reserve === 0 && used() + bytes <= capacity) reserve = bytes;
          return Promise.resolve();
        },
        release: () => {
          const had = reserve > 0;
          if (had) releases++;
          reserve = 0;
          return Promise.resolve(had);
        },
      },
    },
    vault.secrets,
  );
  const result = await prune(full, index, { ...living, maxWaste: 0.1 });
  assert.ok(result.copied.bytes > free, 'more than was free');
  assert.deepEqual([result.noRoom, releases, reserve], [0, 1, kept]);
  assert.ok(result.kept.waste < 50_000, String(result.kept.waste));
  assert.deepEqual(await readBack(vault, newIndex(), second.devices[0]!), half);
});

test('a writer whose point found no room ends, unless the point may still appear', async () => {
  const room = { keep: () => Promise.resolve(), release: () => Promise.resolve(false) };
  for (const [what, isDirectory, isThere, waited] of [
    ['a directory', true, false, 0],
    ['a directory that reports it after the point was stored', true, true, 1],
    ['a bucket, where an earlier attempt may still take effect', false, false, 1],
  ] as const) {
    const { store, vault, index, newIndex } = await newVault();
    const other = await Vault.open(
      {
        ...store,
        ...(isDirectory ? { room } : {}),
        put: async (key, data, options) => {
          if (!key.startsWith('points/')) return store.put(key, data, options);
          if (isThere) await store.put(key, data, options);
          throw new AgentError('VAULT_FULL', 'no room');
        },
      },
      vault.secrets,
    );
    await assert.rejects(backUp(other, newIndex(), { image: spreadImage(0, 20), size }), {
      code: 'VAULT_FULL',
    });
    const ended = [...store.objects.keys()].filter((key) => key.endsWith('.end'));
    assert.equal(ended.length, 1 - waited, what);
    if (isThere) continue;
    const { deleted } = await prune(vault, index, living);
    assert.equal(deleted.packs, waited === 0 ? 2 : 0, what);
  }
});
