import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test from 'node:test';
import { packIds, storeParts, testIndex, testVault } from '../../../test/helpers/vault-parts.ts';
import { seeded } from '../../../test/helpers/random.ts';
import { AgentError } from '../../base/errors.ts';
import { newId } from '../ids.ts';
import { Namer } from '../names.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { packObject } from './format.ts';
import { PackWriter } from './pack-writer.ts';
import { PartReader } from './part-reader.ts';
import { openPack } from './read-pack.ts';

const MiB = 1024 * 1024;
const chunkSize = 64 * 1024;

/** A store whose puts wait until they are released, in order. */
class HeldStore {
  readonly held: (() => void)[] = [];
  free = false;
  failWith: AgentError | undefined;

  wrap = (inner: ObjectStore): ObjectStore => {
    const put = async (...[key, data, options]: Parameters<ObjectStore['put']>): Promise<void> => {
      if (!this.free)
        await new Promise<void>((resolve) => {
          this.held.push(resolve);
        });
      if (this.failWith !== undefined) throw this.failWith;
      await inner.put(key, data, options);
    };
    return Object.assign(Object.create(inner) as ObjectStore, { put });
  };

  /** Waits until the next put has begun. */
  async begun(): Promise<void> {
    while (this.held.length === 0) await new Promise((resolve) => setImmediate(resolve));
  }

  async next(): Promise<void> {
    await this.begun();
    this.held.shift()!();
  }
}

test('added parts are read back from several packs, also with another index', async (t) => {
  const vault = testVault({ chunkSize });
  const index = testIndex(t, vault);
  const packs = new PackWriter(vault, index, { kind: 'chunks', writer: newId() });
  const namer = new Namer(vault.secrets.chunkNameKey);
  const chunks = Array.from({ length: 100 }, (_, i) =>
    i % 2 === 0 ? randomBytes(chunkSize) : Buffer.alloc(chunkSize, `text ${i}`),
  );
  const names = chunks.map((chunk) => namer.name(chunk));
  // The caller's buffers are reused at once.
  const [name, plain] = [Buffer.alloc(32), Buffer.alloc(chunkSize)];
  for (const [i, chunk] of chunks.entries()) {
    names[i]!.copy(name);
    chunk.copy(plain);
    const wait = packs.add(name, plain);
    if (wait !== undefined) await wait;
  }
  await packs.seal();
  const { counts } = packs;
  assert.deepEqual([counts.chunks, counts.plainBytes, counts.deduplicated], [100, 100 * chunkSize, 0]);
  assert.equal(counts.packs, packIds(vault).length);
  assert.ok(counts.packs >= 4);
  const sizes = [...vault.memory.objects.values()].map(({ data }) => data.length);
  assert.equal(
    counts.packBytes,
    sizes.reduce((sum, size) => sum + size),
  );
  // A pack is closed when it reaches its size, not before and not much later.
  assert.ok(Math.max(...sizes) < vault.packSize + chunkSize + 100);
  assert.equal(sizes.filter((size) => size < vault.packSize).length, 1);
  assert.ok(counts.storedBytes > 50 * chunkSize && counts.storedBytes < counts.packBytes);
  for (const at of [index, testIndex(t, vault)]) {
    const read = await new PartReader(vault, at).getMany(names);
    chunks.forEach((chunk, i) => assert.ok(chunk.equals(read[i]!)));
  }
});

test('a chunk is stored once: in the open, a pending or a stored pack; condemned packs do not count', async (t) => {
  const vault = testVault();
  const index = testIndex(t, vault);
  const chunk = Buffer.alloc(4096, 'a');
  const name = new Namer(vault.secrets.chunkNameKey).name(chunk);
  const writer = (condemned?: ReadonlySet<string>): PackWriter =>
    new PackWriter(vault, index, {
      kind: 'chunks',
      writer: newId(),
      ...(condemned === undefined ? {} : { condemned }),
    });
  const first = writer();
  assert.ok(!first.has(name));
  await first.add(name, chunk);
  assert.ok(first.has(name));
  await first.add(name, chunk);
  const sealing = first.seal();
  assert.ok(first.has(name));
  await sealing;
  await first.add(name, chunk);
  await first.seal();
  assert.deepEqual([first.counts.chunks, first.counts.deduplicated, packIds(vault).length], [1, 2, 1]);

  const second = writer(new Set(packIds(vault)));
  assert.ok(!second.has(name));
  await second.add(name, chunk);
  await second.seal();
  assert.equal(packIds(vault).length, 2);
  assert.equal(index.lookup(name).length, 2);
});

test('one pack is put while the next is filled; after that the caller must wait', async (t) => {
  const held = new HeldStore();
  const vault = testVault({ chunkSize, wrap: held.wrap });
  const index = testIndex(t, vault);
  const packs = new PackWriter(vault, index, { kind: 'chunks', writer: newId() });
  const namer = new Namer(vault.secrets.chunkNameKey);
  const names: Buffer[] = [];
  const add = (): Promise<void> | undefined => {
    const chunk = randomBytes(chunkSize);
    names.push(namer.name(chunk));
    return packs.add(names.at(-1)!, chunk);
  };
  // 16 chunks and their overhead fill a pack.
  for (let i = 0; i < 16; i++) assert.equal(add(), undefined);
  let waits = 0;
  for (let i = 0; i < 15; i++) {
    const wait = add();
    if (wait !== undefined) waits++;
    await wait;
  }
  assert.ok(waits >= 1, 'the event loop runs');
  let ready = false;
  const wait = add()?.then(() => (ready = true));
  assert.ok(wait !== undefined);
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(!ready);
  assert.equal(index.stats().packs, 0);
  await held.next();
  await wait;
  assert.equal(index.stats().packs, 1);
  // A caller that does not wait loses no data.
  for (let i = 0; i < 40; i++) void add();
  held.free = true;
  await held.next();
  await packs.seal();
  assert.equal(index.stats().parts, names.length);
  for (const [key, { data }] of vault.memory.objects) {
    const { directory, parts } = openPack(vault, key.slice(-32), data);
    assert.ok([...parts()].every((part) => 'plain' in part));
    assert.ok(directory.parts.length <= 16);
  }
});

test('settled waits for pending packs and leaves the open pack open', async (t) => {
  const held = new HeldStore();
  const vault = testVault({ wrap: held.wrap });
  const packs = new PackWriter(vault, testIndex(t, vault), { kind: 'chunks', writer: newId() });
  const namer = new Namer(vault.secrets.chunkNameKey);
  await packs.settled();
  const chunks = Array.from({ length: 258 }, () => randomBytes(4096));
  for (const chunk of chunks) await packs.add(namer.name(chunk), chunk);
  let settled = false;
  const waiting = packs.settled().then(() => (settled = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(!settled);
  await held.next();
  await waiting;
  assert.equal(packIds(vault).length, 1);
  held.free = true;
  await packs.seal();
  assert.equal(packIds(vault).length, 2);
});

test('the next and every later call reports a failed put, and no pack is added', async (t) => {
  const held = new HeldStore();
  const vault = testVault({ chunkSize, wrap: held.wrap });
  const index = testIndex(t, vault);
  const packs = new PackWriter(vault, index, { kind: 'chunks', writer: newId() });
  const namer = new Namer(vault.secrets.chunkNameKey);
  held.free = true;
  held.failWith = new AgentError('VAULT_FULL', 'no room');
  const addMany = async (): Promise<void> => {
    for (let i = 0; i < 40; i++) {
      const chunk = randomBytes(chunkSize);
      await packs.add(namer.name(chunk), chunk);
    }
  };
  const full = { code: 'VAULT_FULL' };
  await assert.rejects(addMany(), full);
  held.failWith = undefined;
  await assert.rejects(addMany(), full);
  await assert.rejects(packs.seal(), full);
  await assert.rejects(packs.settled(), full);
  assert.deepEqual([index.stats().packs, packIds(vault).length], [0, 0]);
});

test('a signal that fires ends all calls with its reason', async (t) => {
  const held = new HeldStore();
  const vault = testVault({ wrap: held.wrap });
  const abort = new AbortController();
  const packs = new PackWriter(vault, testIndex(t, vault), {
    kind: 'chunks',
    writer: newId(),
    signal: abort.signal,
  });
  const chunk = Buffer.alloc(4096, 1);
  const name = new Namer(vault.secrets.chunkNameKey).name(chunk);
  await packs.add(name, chunk);
  const sealing = packs.seal();
  await held.begun();
  const reason = new Error('stopped');
  abort.abort(reason);
  await Promise.all([held.next(), assert.rejects(sealing, reason)]);
  assert.throws(() => packs.add(name, chunk), reason);
});

test('if a refresh began during a put, the writer checks whether its pack still exists', async (t) => {
  const held = new HeldStore();
  const vault = testVault({ wrap: held.wrap });
  const index = testIndex(t, vault);
  let heads = 0;
  const store = vault.store;
  const counting = Object.assign(Object.create(store) as ObjectStore, {
    head: (key: string) => {
      heads++;
      return store.head(key);
    },
  });
  const seal = async (meanwhile: () => void): Promise<void> => {
    const packs = new PackWriter({ ...vault, store: counting }, index, { kind: 'chunks', writer: newId() });
    const chunk = randomBytes(4096);
    await packs.add(new Namer(vault.secrets.chunkNameKey).name(chunk), chunk);
    const sealing = packs.seal();
    await held.begun();
    meanwhile();
    await held.next();
    await sealing;
  };
  await seal(() => undefined);
  assert.deepEqual([heads, index.stats().packs], [0, 1]);
  await seal(() => index.countRefresh());
  assert.deepEqual([heads, index.stats().packs], [1, 2]);
  // The writer was declared stale, and its pack was deleted right after it was stored.
  const put = vault.memory.put.bind(vault.memory);
  vault.memory.put = async (key, data) => {
    await put(key, data);
    await vault.memory.delete(key);
  };
  await assert.rejects(
    seal(() => index.countRefresh()),
    { code: 'VAULT_DAMAGED', message: /declared stale/ },
  );
  assert.equal(index.stats().packs, 2);
});

test('all zstd levels work, and incompressible parts are stored uncompressed', async (t) => {
  const vault = testVault({ chunkSize });
  const sizes: number[] = [];
  const random = seeded(1);
  const words = Array.from({ length: 5000 }, () => `word${Math.floor(random() ** 3 * 500)}`);
  const text = Buffer.from(words.join(' '));
  for (const level of [1, 19]) {
    const packs = new PackWriter(vault, testIndex(t, vault), { kind: 'chunks', writer: newId(), level });
    await packs.add(new Namer(vault.secrets.chunkNameKey).name(text), text);
    await packs.seal();
    sizes.push(packs.counts.storedBytes);
  }
  assert.ok(sizes[1]! < sizes[0]! && sizes[0]! < text.length);
  const index = testIndex(t, vault);
  const [name] = await storeParts(vault, index, [randomBytes(1000)]);
  assert.deepEqual(
    index.lookup(name!).map(({ encoding, encodedLength }) => [encoding, encodedLength]),
    [[0, 1000]],
  );
});

test('a part that is empty or longer than any chunk is a bug of the caller', (t) => {
  const vault = testVault();
  const packs = new PackWriter(vault, testIndex(t, vault), { kind: 'chunks', writer: newId() });
  assert.throws(() => packs.add(randomBytes(32), Buffer.alloc(0)), RangeError);
  assert.throws(() => packs.add(randomBytes(32), Buffer.alloc(MiB + 1)), RangeError);
  assert.equal(packObject('ab'.repeat(16)).length, 41);
});
