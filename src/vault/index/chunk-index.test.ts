import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import { type IndexWorkerData, partName } from '../../../test/helpers/index-worker.ts';
import { indexPath, storeParts, testIndex, testVault } from '../../../test/helpers/vault-parts.ts';
import { newId } from '../ids.ts';
import type { PackDirectory } from '../packs/format.ts';
import { ChunkIndex } from './chunk-index.ts';
import { refreshIndex } from './refresh.ts';
import { sweep } from './sweep.ts';

function directory(names: readonly Buffer[], more: Partial<PackDirectory> = {}): PackDirectory {
  const parts = names.map((name, i) => ({
    name,
    offset: 32 + i * 1000,
    encodedLength: 984,
    plainLength: 4096,
    encoding: 1 as const,
  }));
  return { id: newId(), kind: 'chunks', writer: newId(), created: 17, size: 123_456, parts, ...more };
}

const someNames = (count: number): Buffer[] => Array.from({ length: count }, () => randomBytes(32));

test('parts are found in all packs that hold them, unless dropped or condemned', (t) => {
  const index = testIndex(t, testVault());
  const [a, b, c] = someNames(3) as [Buffer, Buffer, Buffer];
  const first = directory([a, b]);
  const second = directory([b, c], { kind: 'pages' });
  index.addPack(first);
  index.addPack(second);
  index.addPack(second);
  assert.deepEqual(
    index.lookup(b).map(({ pack, kind, offset }) => [pack, kind, offset]),
    [
      [first.id, 'chunks', 1032],
      [second.id, 'pages', 32],
    ],
  );
  const { parts, ...head } = second;
  assert.deepEqual([...index.packs()].at(-1), { ...head, parts: parts.length });
  assert.deepEqual(index.pack(second.id), { ...head, parts: parts.length });
  assert.equal(index.pack(newId()), undefined);
  assert.deepEqual(index.stats(), { packs: 2, parts: 4, bytes: 2 * 123_456 });

  const none = new Set<string>();
  assert.ok(index.hasLive(b, new Set([first.id])) && index.hasLive(b, none));
  assert.ok(!index.hasLive(b, new Set([first.id, second.id])) && !index.hasLive(randomBytes(32), none));

  index.dropPack(first.id);
  assert.ok(!index.has(a) && index.has(b));
  assert.deepEqual(index.lookup(a), []);
  index.addPack(first);
  assert.equal(index.lookup(a).length, 1);
  assert.equal(index.lookup(b).length, 2);
});

test('a pack that a refresh may have missed is not added without another check', (t) => {
  const index = testIndex(t, testVault());
  const since = index.refreshes();
  assert.ok(index.addPack(directory(someNames(2)), since));
  index.countRefresh();
  const late = directory(someNames(2));
  assert.ok(!index.addPack(late, since));
  assert.equal(index.pack(late.id), undefined);
  assert.ok(index.addPack(late, index.refreshes()));
});

test('only dropped parts are swept, and only if there are many', async (t) => {
  const index = testIndex(t, testVault());
  const kept = directory(someNames(3000));
  const shared = kept.parts.slice(0, 10).map(({ name }) => name);
  const gone = Array.from({ length: 20 }, () => directory([...someNames(990), ...shared]));
  index.addPacks([...gone.slice(0, 10), kept, ...gone.slice(10)]);
  index.dropPacks(gone.map(({ id }) => id));
  const rows = (): unknown => index.database.prepare('SELECT count(*) AS n FROM parts').get()?.['n'];
  assert.equal(rows(), 23_000);
  await sweep(index, undefined, 50_000);
  assert.equal(rows(), 23_000);
  await sweep(index);
  assert.equal(rows(), 3000);
  for (const { name } of kept.parts) assert.equal(index.lookup(name).length, 1);
  index.dropPack(kept.id);
  await sweep(index, undefined, 1);
  assert.equal(rows(), 0);
});

test('a file that is not an index, or of another vault, is replaced by a new one', (t) => {
  const vault = testVault();
  const path = indexPath(t);
  writeFileSync(path, randomBytes(100_000));
  const [name] = someNames(1) as [Buffer];
  const made = ChunkIndex.open(path, vault.id);
  made.addPack(directory([name]));
  made.close();
  const again = ChunkIndex.open(path, vault.id);
  assert.ok(again.has(name));
  again.close();
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const other = ChunkIndex.open(path, newId());
  assert.ok(!other.has(name));
  other.close();
  writeFileSync(path, readFileSync(path).subarray(0, 5000));
  const cut = ChunkIndex.open(path, vault.id);
  assert.deepEqual(cut.stats(), { packs: 0, parts: 0, bytes: 0 });
  cut.close();
});

test('if the file is damaged in the middle, lookups use a new file, and a refresh fills it again', async (t) => {
  const vault = testVault();
  const path = indexPath(t);
  const chunks = Array.from({ length: 4000 }, (_, i) => Buffer.from(`chunk ${i}`));
  const filled = ChunkIndex.open(path, vault.id);
  const names = await storeParts(vault, filled, chunks);
  filled.close();
  // All pages but the first few are overwritten. SQLite notices it when it reads one of them.
  const file = openSync(path, 'r+');
  writeSync(file, randomBytes(statSync(path).size - 32_768), 0, undefined, 32_768);
  closeSync(file);
  const broken = ChunkIndex.open(path, vault.id);
  const still = ChunkIndex.open(path, vault.id);
  assert.throws(() => still.addPack(directory(someNames(4000))), { code: 'VAULT_INDEX_DAMAGED' });
  assert.ok(names.map((name) => broken.has(name)).includes(false));
  const other = ChunkIndex.open(path, vault.id);
  t.after(() => other.close());
  assert.deepEqual(other.stats(), { packs: 0, parts: 0, bytes: 0 });
  // A process with the old file open switches to the new one at its next refresh.
  const { added } = await refreshIndex(vault, still);
  assert.equal(added, 1);
  for (const index of [broken, still]) {
    assert.ok(names.every((name) => index.has(name)));
    index.close();
  }
  assert.ok(names.every((name) => other.has(name)));
});

test('an index that cannot be created names its path', (t) => {
  const path = indexPath(t);
  writeFileSync(path, '');
  assert.throws(() => ChunkIndex.open(`${path}/index`, newId()), { code: 'FILE_ERROR', message: /index/ });
});

test('several threads fill one index at once', async (t) => {
  const vault = testVault();
  const path = indexPath(t);
  const index = testIndex(t, vault, path);
  const [threads, packs, parts] = [3, 30, 40];
  const misses = await Promise.all(
    Array.from({ length: threads }, async (_, thread) => {
      const data: IndexWorkerData = { path, vaultId: vault.id, thread, packs, parts };
      const worker = new Worker(new URL('../../../test/helpers/index-worker.ts', import.meta.url), {
        workerData: data,
      });
      const [missed] = (await once(worker, 'message')) as [number];
      await worker.terminate();
      return missed;
    }),
  );
  assert.deepEqual(misses, [0, 0, 0]);
  assert.deepEqual(index.stats().parts, threads * packs * parts);
  assert.equal(index.lookup(partName(2, 29, 39)).length, 1);
});
