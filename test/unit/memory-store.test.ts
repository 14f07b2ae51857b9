import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { countingStore } from '../helpers/stores/counting-store.ts';
import { faultyStore } from '../helpers/stores/faulty-store.ts';
import { openMemoryStore } from '../helpers/stores/memory-store.ts';
import type { ObjectStore } from '../../src/vault/store/object-store.ts';
import { rateLimitedStore } from '../../src/vault/store/rate.ts';
import { retryingStore } from '../../src/vault/store/retry.ts';
import { storeContract } from '../contracts/object-store.contract.ts';

const forms: Readonly<Record<string, (store: ObjectStore) => ObjectStore>> = {
  memory: (store) => store,
  'memory, counted': countingStore,
  'memory, rate limited': (store) => rateLimitedStore(store, { upload: 2 ** 40, download: 2 ** 40 }),
  'memory, with faults that never occur': (store) => faultyStore(store, { fate: () => undefined }),
  'memory, with retries': (store) => retryingStore(store),
  'memory that fails every third time, with retries': (store) =>
    retryingStore(
      faultyStore(store, {
        fate: ({ number }) => (number % 3 === 1 ? { kind: 'fail', happened: number % 2 === 0 } : undefined),
      }),
      { firstWaitMs: 1 },
      { clock: systemClock },
    ),
};

for (const [name, wrap] of Object.entries(forms))
  storeContract(
    name,
    () => {
      const store = wrap(openMemoryStore());
      return Promise.resolve({ store, close: () => store.close() });
    },
    name === 'memory' ? {} : { manyKeys: 200, largest: 2 ** 20 },
  );

test('uses the given clock, and returns to snapshots', async () => {
  let now = 1000;
  const store = openMemoryStore({ now: () => now });
  await store.put('a', Buffer.from('1'));
  const picture = store.picture();
  now = 5000;
  await store.put('a', Buffer.from('22'));
  await store.delete('b');
  assert.deepEqual(await store.head('a'), { key: 'a', size: 2, modified: 5000 });
  const earlier = openMemoryStore({ objects: picture });
  assert.deepEqual(await earlier.head('a'), { key: 'a', size: 1, modified: 1000 });
  assert.equal((await store.get('a')).toString(), '22');
});

test('shows and cleans names that a test added directly', async () => {
  const now = Date.now();
  const store = openMemoryStore({ now: () => now });
  store.objects.set('tmp/left', { data: Buffer.alloc(5), modified: now - 2 * 86_400_000 });
  store.objects.set('tmp/fresh', { data: Buffer.alloc(5), modified: now });
  store.objects.set('README.TXT', { data: Buffer.alloc(5), modified: now });
  const foreign: string[] = [];
  for await (const name of store.foreign()) foreign.push(name);
  assert.deepEqual(foreign, ['README.TXT']);
  assert.deepEqual(await store.cleanTemporary(), { count: 1, bytes: 5 });
  assert.deepEqual([...store.objects.keys()], ['tmp/fresh', 'README.TXT']);
});

test('refuses a key that is a folder of another, like a directory', async () => {
  const store = openMemoryStore();
  await store.put('a', Buffer.alloc(1));
  await assert.rejects(store.put('a/b', Buffer.alloc(1)), RangeError);
});
