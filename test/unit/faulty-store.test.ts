import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collect } from '../helpers/collect.ts';
import { manualClock } from '../helpers/manual-clock.ts';
import { countingStore } from '../helpers/stores/counting-store.ts';
import { StoreKilled, faultyStore, killAtWrite, nth, randomTrouble } from '../helpers/stores/faulty-store.ts';
import { openMemoryStore } from '../helpers/stores/memory-store.ts';
import { rateLimitedStore } from '../../src/vault/store/rate.ts';

test('the nth request fails before or after it is carried out', async () => {
  for (const happened of [false, true]) {
    const memory = openMemoryStore();
    const store = faultyStore(memory, { fate: nth(1, { kind: 'fail', happened }, 'put') });
    await store.put('a', Buffer.from('x'));
    await assert.rejects(store.put('b', Buffer.from('x')), { code: 'VAULT_UNREACHABLE' });
    await store.put('c', Buffer.from('x'));
    assert.deepEqual([...memory.objects.keys()], happened ? ['a', 'b', 'c'] : ['a', 'c']);
  }
});

test('a late put stores the bytes that were sent', async () => {
  const memory = openMemoryStore();
  const store = faultyStore(memory, {
    fate: ({ write }) => (write === undefined ? undefined : { kind: 'late' }),
  });
  const data = Buffer.from('sent');
  await assert.rejects(store.put('a', data), { code: 'VAULT_UNREACHABLE' });
  await assert.rejects(store.delete('a'), { code: 'VAULT_UNREACHABLE' });
  data.fill(0);
  assert.equal(store.pending, 2);
  assert.equal(memory.objects.size, 0);
  await store.land(1);
  assert.equal((await store.get('a')).toString(), 'sent');
  await store.land();
  assert.equal(memory.objects.size, 0);
});

test('after a kill no request is carried out', async () => {
  for (const happened of [false, true]) {
    const memory = openMemoryStore();
    let kills = 0;
    const store = faultyStore(memory, { fate: killAtWrite(1, happened), onKill: () => kills++ });
    await store.put('a', Buffer.from('x'));
    await store.get('a');
    const after = store.put('c', Buffer.from('x')).catch((thrown: unknown) => thrown);
    await assert.rejects(store.delete('a'), StoreKilled);
    await after;
    await assert.rejects(store.put('d', Buffer.from('x')), StoreKilled);
    await assert.rejects(store.get('a'), StoreKilled);
    await assert.rejects(collect(store.list('')), StoreKilled);
    assert.equal(kills, 1);
    assert.equal(memory.objects.has('d'), false);
    assert.equal(memory.objects.has('c'), happened);
    assert.equal(memory.objects.has('a'), true);
  }
});

test('random trouble is the same for the same random numbers', async () => {
  const run = async (): Promise<string[]> => {
    let state = 7;
    const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
    const store = faultyStore(openMemoryStore(), { fate: randomTrouble(random, 0.3) });
    const log: string[] = [];
    for (let i = 0; i < 200; i++)
      await store.put(`k${i}`, Buffer.alloc(1)).then(
        () => log.push('done'),
        (thrown: unknown) => log.push(String(thrown)),
      );
    await store.land();
    return log;
  };
  const first = await run();
  assert.deepEqual(await run(), first);
  assert.ok(first.some((line) => /late/.test(line)) && first.some((line) => /and happened/.test(line)));
});

test('counts requests and bytes', async () => {
  const store = countingStore(openMemoryStore());
  await store.put('a', [Buffer.alloc(10), Buffer.alloc(5)]);
  await store.get('a', { length: 4 });
  await store.get('b').catch(() => undefined);
  await store.head('a');
  for await (const { key } of store.list('')) assert.equal(key, 'a');
  await store.delete('a');
  assert.deepEqual(store.counts(), {
    requests: { put: 1, get: 2, head: 1, list: 1, delete: 1, clean: 0, foreign: 0 },
    failures: 1,
    bytesPut: 15,
    bytesGot: 4,
  });
});

test('limits the rate in both directions', async () => {
  const clock = manualClock();
  const store = rateLimitedStore(openMemoryStore(), { upload: 1000, download: 4000 }, clock);
  const start = clock.monotonic();
  for (let i = 0; i < 10; i++) await store.put('a', Buffer.alloc(1000));
  const put = clock.monotonic() - start;
  assert.ok(put >= 9_800 && put <= 10_000, `${put} ms for 10000 bytes at 1000 a second`);
  for (let i = 0; i < 20; i++) await store.get('a');
  const got = clock.monotonic() - start - put;
  assert.ok(got >= 4_800 && got <= 5_000, `${got} ms for 20000 bytes at 4000 a second`);
});
