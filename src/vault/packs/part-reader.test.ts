import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test from 'node:test';
import fc from 'fast-check';
import { packIds, storeParts, testIndex, testVault } from '../../../test/helpers/vault-parts.ts';
import type { AgentError } from '../../base/errors.ts';
import type { PartLocation } from '../index/chunk-index.ts';
import { Namer } from '../names.ts';
import { countingStore } from '../../../test/helpers/stores/counting-store.ts';
import { faultyStore, nth } from '../../../test/helpers/stores/faulty-store.ts';
import { packObject, tagLength } from './format.ts';
import { PackWriter } from './pack-writer.ts';
import { PartReader } from './part-reader.ts';
import { joinRuns } from './runs.ts';

const chunks = (count: number, length = 4096): Buffer[] =>
  Array.from({ length: count }, () => randomBytes(length));

test('neighbours are read together, and cached parts are not read again', async (t) => {
  let counts = (): number => 0;
  const vault = testVault({
    wrap: (memory) => {
      const counting = countingStore(memory);
      counts = () => counting.counts().requests.get;
      return counting;
    },
  });
  const index = testIndex(t, vault);
  const data = chunks(200);
  const names = await storeParts(vault, index, data);
  const reader = new PartReader(vault, index);
  const shuffled = names.map((name, i) => ({ name, i })).sort((a, b) => a.name.compare(b.name));
  const read = await reader.getMany(shuffled.map(({ name }) => name));
  shuffled.forEach(({ i }, at) => assert.ok(read[at]!.equals(data[i]!)));
  assert.equal(counts(), 1);
  await reader.getMany(names);
  assert.ok(reader.cached(names[3]!)?.equals(data[3]!));
  assert.equal(counts(), 1);
  const fresh = new PartReader(vault, index);
  fresh.prefetch(names.slice(0, 100));
  const both = await Promise.all([fresh.get(names[5]!), fresh.get(names[5]!), fresh.get(names[120]!)]);
  assert.equal(both[0], both[1]);
  assert.equal(counts(), 2);
});

test('the cache and the read-ahead are limited', async (t) => {
  const vault = testVault();
  const index = testIndex(t, vault);
  const names = await storeParts(vault, index, chunks(100));
  const reader = new PartReader(vault, index, { cacheBytes: 10 * 4096 });
  await reader.getMany(names);
  assert.equal(names.filter((name) => reader.cached(name) !== undefined).length, 10);
  const other = new PartReader(vault, index, { cacheBytes: 10 * 4096 });
  other.prefetch(names);
  await other.get(names[0]!);
  await other.get(names[99]!);
  assert.equal(names.filter((name) => other.cached(name) !== undefined).length, 6);
});

test('runs cover all parts in ranges of limited length, first requested first', () => {
  const located = fc.array(
    fc.record({
      pack: fc.constantFrom('a', 'b'),
      gap: fc.nat({ max: 300_000 }),
      length: fc.integer({ min: 1, max: 1_000_000 }),
    }),
    { maxLength: 40 },
  );
  fc.assert(
    fc.property(located, fc.infiniteStream(fc.nat()), (places, random) => {
      const ends = new Map<string, number>();
      const parts = places.map(({ pack, gap, length }, item) => {
        const offset = (ends.get(pack) ?? 32) + gap;
        ends.set(pack, offset + length + tagLength);
        const location: PartLocation = {
          pack,
          kind: 'chunks',
          offset,
          encodedLength: length,
          plainLength: length,
          encoding: 0,
        };
        return { location, item };
      });
      const asked = parts
        .map((part) => ({ part, key: Number(random.next().value) }))
        .sort((a, b) => a.key - b.key)
        .map(({ part }, item) => ({ ...part, item }));
      const runs = joinRuns(asked);
      const covered = runs.flatMap((run) => run.parts);
      assert.equal(covered.length, asked.length);
      assert.equal(new Set(covered).size, asked.length);
      for (const run of runs) {
        assert.ok(run.parts.length === 1 || run.length <= 2 * 1024 * 1024);
        for (const { location } of run.parts) {
          assert.equal(location.pack, run.pack);
          assert.ok(location.offset >= run.offset);
          assert.ok(location.offset + location.encodedLength + tagLength <= run.offset + run.length);
        }
      }
      const firsts = runs.map((run) => Math.min(...run.parts.map(({ item }) => item)));
      assert.deepEqual(
        firsts,
        firsts.toSorted((a, b) => a - b),
      );
    }),
  );
});

test('if a pack is damaged, another one is used and the damage is reported', async (t) => {
  const vault = testVault();
  const index = testIndex(t, vault);
  const data = chunks(5);
  const names = await storeParts(vault, index, data);
  const [first] = packIds(vault) as [string];
  await storeParts(vault, index, data, { condemned: new Set([first]) });
  const [location] = index.lookup(names[2]!);
  const key = packObject(first);
  const altered = Buffer.from(vault.memory.objects.get(key)!.data);
  altered[location!.offset + 100]! ^= 1;
  vault.memory.objects.set(key, { data: altered, modified: 0 });
  const told: AgentError[] = [];
  const reader = new PartReader(vault, index, { onDamage: (error) => told.push(error) });
  const read = await reader.getMany(names);
  data.forEach((chunk, i) => assert.ok(chunk.equals(read[i]!)));
  assert.deepEqual(
    told.map(({ code, message }) => [code, message.includes(first)]),
    [['VAULT_DAMAGED', true]],
  );
});

test('a part that no pack has is lost; a part that is only in a damaged pack is damaged', async (t) => {
  const vault = testVault();
  const index = testIndex(t, vault);
  const names = await storeParts(vault, index, chunks(5));
  const [id] = packIds(vault) as [string];
  const key = packObject(id);
  const { data } = vault.memory.objects.get(key)!;
  const [location] = index.lookup(names[1]!);
  const altered = Buffer.from(data);
  altered[location!.offset]! ^= 128;
  vault.memory.objects.set(key, { data: altered, modified: 0 });
  const reader = new PartReader(vault, index);
  const results = await Promise.allSettled(names.map((name) => reader.get(name)));
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'fulfilled'],
  );
  await assert.rejects(reader.get(names[1]!), { code: 'VAULT_DAMAGED', message: new RegExp(id) });

  // Truncated without the knowledge of the index.
  vault.memory.objects.set(key, { data: data.subarray(0, location!.offset + 10), modified: 0 });
  await assert.rejects(new PartReader(vault, index).get(names[1]!), { code: 'VAULT_DAMAGED' });
  await vault.store.delete(key);
  await assert.rejects(new PartReader(vault, index).get(names[0]!), { code: 'VAULT_CHUNK_LOST' });
  await assert.rejects(new PartReader(vault, index).get(randomBytes(32)), { code: 'VAULT_CHUNK_LOST' });
});

test('a part with the content of another part is not returned', async (t) => {
  const vault = testVault();
  const index = testIndex(t, vault);
  const chunk = Buffer.alloc(4096, 'a');
  const lie = new Namer(vault.secrets.chunkNameKey).name(Buffer.alloc(4096, 'b'));
  const packs = new PackWriter(vault, index, { kind: 'chunks', writer: '00'.repeat(16) });
  await packs.add(lie, chunk);
  await packs.seal();
  await assert.rejects(new PartReader(vault, index).get(lie), {
    code: 'VAULT_DAMAGED',
    message: /match its name/,
  });
});

test('an index that lags is updated: new packs, and parts that were moved', async (t) => {
  const vault = testVault();
  const [ours, theirs] = [testIndex(t, vault), testIndex(t, vault)];
  const data = chunks(5);
  const names = await storeParts(vault, ours, data);
  const reader = new PartReader(vault, theirs);
  assert.ok((await reader.get(names[0]!)).equals(data[0]!));
  const [old] = packIds(vault) as [string];
  await storeParts(vault, ours, data, { condemned: new Set([old]) });
  await vault.store.delete(packObject(old));
  const read = await reader.getMany(names);
  data.forEach((chunk, i) => assert.ok(chunk.equals(read[i]!)));
});

test('many lost chunks do not cause many listings', async (t) => {
  let lists = (): number => 0;
  const vault = testVault({
    wrap: (memory) => {
      const counting = countingStore(memory);
      lists = () => counting.counts().requests.list;
      return counting;
    },
  });
  const reader = new PartReader(vault, testIndex(t, vault));
  for (let i = 0; i < 5; i++) {
    const results = await Promise.allSettled(Array.from({ length: 20 }, () => reader.get(randomBytes(32))));
    assert.ok(results.every(({ status }) => status === 'rejected'));
  }
  assert.equal(lists(), 1);
});

test('a store that fails once is asked again by the next call', async (t) => {
  const vault = testVault({
    wrap: (memory) => faultyStore(memory, { fate: nth(0, { kind: 'fail', happened: false }, 'get') }),
  });
  const index = testIndex(t, vault);
  const data = chunks(2);
  const names = await storeParts(vault, index, data);
  const reader = new PartReader(vault, index);
  await assert.rejects(reader.getMany(names), { code: 'VAULT_UNREACHABLE' });
  assert.ok((await reader.get(names[1]!)).equals(data[1]!));
});

test('a signal that fires ends reading with its reason', async (t) => {
  const vault = testVault();
  const index = testIndex(t, vault);
  const names = await storeParts(vault, index, chunks(2));
  const abort = new AbortController();
  const reader = new PartReader(vault, index, { signal: abort.signal });
  const reading = reader.get(names[0]!);
  const reason = new Error('stopped');
  abort.abort(reason);
  await assert.rejects(reading, reason);
});
