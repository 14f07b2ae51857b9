/**
 * The contract of `ObjectStore` as a test suite that every implementation and decorator runs:
 *
 *     storeContract('memory', async () => ({ store, close }));
 *
 * `open` gives an empty store; `close` is called at the end of each test.
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { AgentError } from '../../src/base/errors.ts';
import type { ObjectStore } from '../../src/vault/store/object-store.ts';

export interface OpenedStore {
  readonly store: ObjectStore;
  readonly close: () => Promise<void>;
}

export interface ContractOptions {
  /** Number of keys of the longest listing. Default: 1100, more than a page of S3. */
  readonly manyKeys?: number;
  /** Bytes of the largest object. Default: slightly more than 64 MiB. */
  readonly largest?: number;
  /** True if only one of several simultaneous puts of a new object succeeds. Default: true. */
  readonly settlesRaces?: boolean;
  /** True if a reader may miss an object for a moment while several puts replace it. Default: false. */
  readonly mayMissReplaced?: boolean;
}

/** Number of parallel requests in tests with many requests. */
const AT_ONCE = 16;

export function storeContract(
  name: string,
  open: () => Promise<OpenedStore>,
  options: ContractOptions = {},
): void {
  const contract = (what: string, run: (store: ObjectStore) => Promise<void>): void => {
    void test(what, { timeout: 120_000 }, async () => {
      const { store, close } = await open();
      try {
        await run(store);
      } finally {
        await close();
      }
    });
  };

  void describe(`ObjectStore contract: ${name}`, () => {
    contract('gives back the stored bytes', async (store) => {
      assert.ok(store.name.length > 0);
      for (const size of [0, 1, 511, 65_536, 100_001]) {
        const data = randomBytes(size);
        await store.put('packs/ab/x.1', data);
        assert.deepEqual(await store.get('packs/ab/x.1'), data, `${size} bytes`);
      }
      await store.put('vault.json', Buffer.from('{}'));
      await store.put('a/b/c/d', new Uint8Array([1, 2, 3]));
      assert.equal((await store.get('vault.json')).toString(), '{}');
      assert.deepEqual([...(await store.get('a/b/c/d'))], [1, 2, 3]);
    });

    contract('stores parts of all sizes in order', async (store) => {
      const parts = Array.from({ length: 1500 }, (_, i) => randomBytes((i * 37) % 401));
      await store.put('parts', parts);
      assert.deepEqual(await store.get('parts'), Buffer.concat(parts));
      await store.put('parts', []);
      assert.equal((await store.get('parts')).length, 0);
    });

    contract('gives ranges, shortened at the end of the object', async (store) => {
      const data = randomBytes(10_000);
      await store.put('o', data);
      await store.put('empty', Buffer.alloc(0));
      const cases: readonly [{ offset?: number; length?: number; suffix?: number }, number, number][] = [
        [{ offset: 0, length: 1 }, 0, 1],
        [{ offset: 9_999, length: 1 }, 9_999, 10_000],
        [{ offset: 100, length: 5_000 }, 100, 5_100],
        [{ length: 7 }, 0, 7],
        [{ offset: 9_000 }, 9_000, 10_000],
        [{ offset: 9_000, length: 5_000 }, 9_000, 10_000],
        [{ offset: 10_000, length: 5 }, 0, 0],
        [{ offset: 1_000_000, length: 5 }, 0, 0],
        [{ offset: 1_000_000 }, 0, 0],
        [{ offset: 5, length: 0 }, 0, 0],
        [{ suffix: 24 }, 9_976, 10_000],
        [{ suffix: 10_000 }, 0, 10_000],
        [{ suffix: 20_000 }, 0, 10_000],
        [{ suffix: 0 }, 0, 0],
      ];
      for (const [range, start, end] of cases) {
        const found = await store.get('o', range);
        assert.ok(found.equals(data.subarray(start, end)), `${JSON.stringify(range)} gave ${found.length}`);
        assert.equal((await store.get('empty', range)).length, 0, `empty ${JSON.stringify(range)}`);
      }
      await assert.rejects(store.get('o', { offset: -1 }), RangeError);
      await assert.rejects(store.get('o', { offset: 1, suffix: 1 }), RangeError);
    });

    contract('reports missing objects as missing', async (store) => {
      await store.put('a/b', Buffer.from('x'));
      for (const key of ['nothing', 'a/c', 'x/y/z', 'a', 'a/b2'])
        for (const range of [{}, { offset: 5, length: 3 }, { length: 0 }, { suffix: 4 }])
          await assert.rejects(store.get(key, range), { code: 'VAULT_OBJECT_MISSING' }, key);
      for (const key of ['nothing', 'a/c', 'a']) {
        assert.equal(await store.head(key), undefined);
        await store.delete(key === 'a' ? 'a/c' : key);
      }
      assert.deepEqual(await keysOf(store, 'nothing'), []);
      assert.deepEqual(await keysOf(store, 'no/such/'), []);
    });

    contract('replaces objects, and reports size and time', async (store) => {
      const before = Date.now();
      await store.put('k/o', randomBytes(5_000));
      const first = await store.head('k/o');
      await store.put('k/o', Buffer.from('short'));
      const second = await store.head('k/o');
      assert.equal(first?.size, 5_000);
      assert.equal(second?.size, 5);
      assert.ok(second.modified >= first.modified - 2_000);
      assert.ok(Math.abs(second.modified - before) < 300_000, `modified ${second.modified}`);
      assert.equal((await store.get('k/o')).toString(), 'short');
      const [listed] = await everything(store, '');
      assert.deepEqual({ key: listed?.key, size: listed?.size }, { key: 'k/o', size: 5 });
      assert.ok(Math.abs(listed!.modified - second.modified) < 2_000);
    });

    contract('does not replace an object that must be new', async (store) => {
      await store.put('n/o', Buffer.from('first'), { isNew: true });
      await store.put('n/o', Buffer.from('first'), { isNew: true });
      const exists = {
        code: 'VAULT_OBJECT_EXISTS',
        message: /already has an object n\/o with other content/,
      };
      for (const other of ['secon', 'longer than before', ''])
        await assert.rejects(store.put('n/o', Buffer.from(other), { isNew: true }), exists);
      assert.equal((await store.get('n/o')).toString(), 'first');
      await store.delete('n/o');
      await store.put('n/o', [Buffer.from('th'), Buffer.from('ird')], { isNew: true });
      assert.equal((await store.get('n/o')).toString(), 'third');
      assert.deepEqual(await keysOf(store, ''), ['n/o']);
      assert.deepEqual(await store.cleanTemporary({ olderThanMs: 0 }), { count: 0, bytes: 0 });
    });

    contract('lets one of many simultaneous puts of a new object succeed', async (store) => {
      if (options.settlesRaces === false) return;
      const contents = Array.from({ length: 12 }, (_, i) => Buffer.alloc(1000 + i, i + 1));
      const outcomes = await Promise.allSettled(
        contents.map((content) => store.put('n/race', content, { isNew: true })),
      );
      const there = await store.get('n/race');
      outcomes.forEach((outcome, i) => {
        if (outcome.status === 'fulfilled')
          assert.ok(there.equals(contents[i]!), `put ${i} reported success`);
        else assert.equal((outcome.reason as AgentError).code, 'VAULT_OBJECT_EXISTS');
      });
    });

    contract('stores large objects, and reads them whole and in ranges', async (store) => {
      for (const size of [16 * MiB + 1, options.largest ?? 64 * MiB + 12_345]) {
        const parts = largeParts(size);
        const whole = Buffer.concat(parts);
        await store.put('large/one', parts);
        assert.equal((await store.head('large/one'))?.size, size);
        assert.equal(sha256(await store.get('large/one')), sha256(whole));
        for (const offset of [0, 16 * MiB - 10, size - 5])
          assert.deepEqual(
            await store.get('large/one', { offset, length: 65_536 }),
            whole.subarray(offset, offset + 65_536),
          );
        assert.deepEqual(await store.get('large/one', { suffix: 1_000 }), whole.subarray(-1_000));
      }
      await store.put('large/one', Buffer.from('small again'));
      assert.equal((await store.get('large/one')).toString(), 'small again');
    });

    contract('lists by the beginnings of keys', async (store) => {
      const keys = [
        'packs/ab/1',
        'packs/ab/2',
        'packs/abc',
        'packs/b/1',
        'packs-2',
        'points/x',
        'p',
        'vault.json',
      ];
      for (const key of keys) await store.put(key, Buffer.from(key));
      const cases: readonly [prefix: string, expected: string[]][] = [
        ['', [...keys].sort()],
        ['p', keys.filter((key) => key.startsWith('p')).sort()],
        ['packs', ['packs-2', 'packs/ab/1', 'packs/ab/2', 'packs/abc', 'packs/b/1']],
        ['packs/', ['packs/ab/1', 'packs/ab/2', 'packs/abc', 'packs/b/1']],
        ['packs/ab', ['packs/ab/1', 'packs/ab/2', 'packs/abc']],
        ['packs/ab/', ['packs/ab/1', 'packs/ab/2']],
        ['packs/ab/1', ['packs/ab/1']],
        ['packs/ab/1/', []],
        ['z', []],
      ];
      for (const [prefix, expected] of cases) {
        assert.deepEqual(await keysOf(store, prefix), expected, `prefix "${prefix}"`);
        for (const after of [...expected, 'packs/ab0', 'packs/a'])
          assert.deepEqual(
            await keysOf(store, prefix, after),
            expected.filter((key) => key > after),
            `prefix "${prefix}" after ${after}`,
          );
      }
      for (const { key, size } of await everything(store, '')) assert.equal(size, key.length);
    });

    contract('lists more than a page', async (store) => {
      const count = options.manyKeys ?? 1_100;
      const keys = Array.from({ length: count }, (_, i) => `many/${(i % 5).toString()}/n${i}`).sort();
      await atOnce(keys, (key) => store.put(key, Buffer.from(key)));
      assert.deepEqual(await keysOf(store, 'many/'), keys);
      assert.deepEqual(
        await keysOf(store, 'many/3/'),
        keys.filter((key) => key.startsWith('many/3/')),
      );
      // A reader may stop early.
      let seen = 0;
      for await (const { key } of store.list('many/')) if (key !== '' && ++seen === 3) break;
      await atOnce(keys, (key) => store.delete(key));
      assert.deepEqual(await keysOf(store, ''), []);
    });

    contract('lists unchanged objects during concurrent puts and deletes', async (store) => {
      const stays = Array.from({ length: 40 }, (_, i) => `l/${i % 4}/s${i}`);
      await atOnce(stays, (key) => store.put(key, Buffer.alloc(1)));
      let over = false;
      const churn = [0, 1].map(async (who) => {
        for (let i = 0; !over; i++) {
          await store.put(`l/${i % 4}/c${who}`, Buffer.alloc(1));
          await store.put(`l/n${who}-${i % 3}/x`, Buffer.alloc(1));
          await store.delete(`l/${i % 4}/c${who}`);
        }
      });
      try {
        for (let round = 0; round < 8; round++) {
          const found = await keysOf(store, 'l/', undefined, false);
          assert.equal(new Set(found).size, found.length, 'none twice');
          assert.deepEqual(found.filter((key) => key.includes('/s')).sort(), [...stays].sort());
        }
      } finally {
        over = true;
        await Promise.all(churn);
      }
    });

    contract('shows one complete object during many puts', async (store) => {
      const versions = Array.from({ length: 8 }, (_, i) => Buffer.alloc(50_000 + i, i + 1));
      const isWhole = (found: Buffer): boolean => versions.some((version) => version.equals(found));
      await store.put('same/key', versions[0]!);
      const state = { over: false };
      const reading = (async () => {
        while (!state.over) {
          const found = await store.get('same/key').catch((error: unknown) => {
            const isMissing = (error as AgentError).code === 'VAULT_OBJECT_MISSING';
            if (options.mayMissReplaced !== true || !isMissing) throw error;
          });
          if (found !== undefined) assert.ok(isWhole(found), 'a reader sees one whole');
        }
      })();
      for (let round = 0; round < 5; round++)
        await Promise.all(versions.map((version) => store.put('same/key', version)));
      state.over = true;
      await reading;
      assert.ok(isWhole(await store.get('same/key')));
    });

    contract('deletes', async (store) => {
      await store.put('d/one', Buffer.from('1'));
      await store.put('d/two', Buffer.from('2'));
      await store.delete('d/one');
      await store.delete('d/one');
      assert.equal(await store.head('d/one'), undefined);
      await assert.rejects(store.get('d/one'), { code: 'VAULT_OBJECT_MISSING' });
      assert.deepEqual(await keysOf(store, ''), ['d/two']);
      await store.put('d/one', Buffer.from('again'));
      assert.equal((await store.get('d/one')).toString(), 'again');
      assert.deepEqual(await keysOf(store, ''), ['d/one', 'd/two']);
    });

    contract('refuses invalid keys', async (store) => {
      const wrong = [
        '', '/', 'a/', '/a', 'a//b', '.', '..', 'a/..', '../a', '.nfs1', 'a/.b', 'A', 'a b', 'ä', 'a\\b', 'a\0',
        'tmp', 'tmp/a', 'a/b/c/d/e', 'x'.repeat(201),
      ]; // prettier-ignore
      for (const key of wrong) {
        await assert.rejects(async () => store.put(key, Buffer.alloc(1)), RangeError, `put "${key}"`);
        await assert.rejects(async () => store.get(key), RangeError, `get "${key}"`);
        await assert.rejects(async () => store.head(key), RangeError, `head "${key}"`);
        await assert.rejects(async () => store.delete(key), RangeError, `delete "${key}"`);
      }
      for (const prefix of ['/', 'a//', '..', '../', 'A', 'tmp', 'tmp/'])
        await assert.rejects(keysOf(store, prefix), RangeError, `list "${prefix}"`);
      assert.deepEqual(await keysOf(store, ''), []);
    });

    contract('does not share memory with the caller', async (store) => {
      const data = Buffer.alloc(1_000, 1);
      await store.put('m', data);
      data.fill(2);
      const first = await store.get('m');
      first.fill(3);
      assert.deepEqual(await store.get('m'), Buffer.alloc(1_000, 1));
    });

    contract('stops when its signal is aborted', async (store) => {
      await store.put('s/old', Buffer.from('old'));
      const signal = AbortSignal.abort(new Error('enough'));
      const enough = /enough/;
      await assert.rejects(store.put('s/new', Buffer.from('new'), { signal }), enough);
      await assert.rejects(store.put('s/old', Buffer.from('new'), { signal }), enough);
      await assert.rejects(store.get('s/old', { signal }), enough);
      await assert.rejects(store.head('s/old', { signal }), enough);
      await assert.rejects(store.delete('s/old', { signal }), enough);
      await assert.rejects(async () => {
        for await (const { key } of store.list('', { signal })) assert.fail(key);
      }, enough);
      assert.deepEqual(await keysOf(store, ''), ['s/old']);
      assert.equal((await store.get('s/old')).toString(), 'old');

      const large = largeParts(24 * MiB);
      const { length } = Buffer.concat(large);
      for (const delay of [0, 5, 30]) {
        const put = store.put('s/large', large, { signal: AbortSignal.timeout(delay) });
        const done = await put.then(
          () => true,
          () => false,
        );
        const found = await store.head('s/large');
        assert.ok(done ? found?.size === length : found === undefined || found.size === length);
        await store.delete('s/large');
      }
    });

    contract('has nothing to clean and no foreign names in normal operation', async (store) => {
      await store.put('a/b', Buffer.from('x'));
      assert.equal((await store.cleanTemporary({ olderThanMs: 1_000 })).count, 0);
      const foreign: string[] = [];
      for await (const name of store.foreign()) foreign.push(name);
      assert.deepEqual(foreign, []);
      assert.deepEqual(await keysOf(store, ''), ['a/b']);
    });
  });
}

/** Returns the listed keys, sorted. */
async function keysOf(store: ObjectStore, prefix: string, after?: string, sort = true): Promise<string[]> {
  const keys = (await everything(store, prefix, after)).map(({ key }) => key);
  return sort ? keys.sort() : keys;
}

async function everything(store: ObjectStore, prefix: string, after?: string) {
  const found = [];
  for await (const object of store.list(prefix, { after })) found.push(object);
  return found;
}

async function atOnce(keys: readonly string[], work: (key: string) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let key = keys[next++]; key !== undefined; key = keys[next++]) await work(key);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

/** Returns parts of uneven sizes with a total of `size` bytes. */
function largeParts(size: number): Buffer[] {
  const block = randomBytes(MiB);
  const parts: Buffer[] = [];
  for (let left = size, i = 0; left > 0; i++) {
    const length = Math.min(left, 700_001 + ((i * 104_729) % 300_000));
    parts.push(Buffer.from(block.subarray(0, length)));
    parts.at(-1)!.writeUInt32LE(i);
    left -= length;
    if (left > 0 && left < 4) {
      parts.push(Buffer.alloc(left, 7));
      left = 0;
    }
  }
  return parts;
}

function sha256(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}
