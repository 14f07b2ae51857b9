import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { choosePacks } from './choose-packs.ts';
import { LiveSet } from './live-set.ts';
import { PageSet } from './page-set.ts';
import type { PackUsage } from './pack-usage.ts';

const scratch = mkdtempSync(join(tmpdir(), 'vault-sets-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

function nameOf(number: number): Buffer {
  return createHash('sha256').update(String(number)).digest();
}

const numbers = fc.array(fc.integer({ min: 0, max: 5000 }), { maxLength: 800 });

test('a live set has the names that were added before finish, in memory and in files', () => {
  fc.assert(
    fc.property(fc.array(numbers, { maxLength: 4 }), fc.integer({ min: 1, max: 300 }), (rounds, capacity) => {
      const set = new LiveSet({ path: join(scratch, 'live'), capacity });
      const expected = new Set<number>();
      for (const round of rounds) {
        for (const each of round) set.add(nameOf(each));
        set.finish();
        for (const each of round) expected.add(each);
        for (let each = 0; each <= 5000; each += 37) assert.equal(set.has(nameOf(each)), expected.has(each));
        for (const each of expected) assert.ok(set.has(nameOf(each)));
      }
      set.close();
    }),
    { numRuns: 30 },
  );
  assert.deepEqual(readdirSync(scratch), [], 'no file is left');
});

test('a live set of many blocks finds each name', () => {
  const set = new LiveSet({ path: join(scratch, 'live'), capacity: 3000 });
  for (let each = 0; each < 20_000; each++) set.add(nameOf(each % 15_000));
  set.finish();
  assert.equal(set.size, 15_000);
  for (let each = 0; each < 15_000; each++) assert.ok(set.has(nameOf(each)));
  for (let each = 15_000; each < 20_000; each++) assert.ok(!set.has(nameOf(each)));
  set.close();
});

test('a page set behaves like a set', () => {
  fc.assert(
    fc.property(numbers, (added) => {
      const set = new PageSet(4);
      const expected = new Set<number>();
      for (const each of added) {
        assert.equal(set.add(nameOf(each)), !expected.has(each));
        expected.add(each);
      }
      assert.equal(set.size, expected.size);
      for (let each = 0; each <= 5000; each += 7) assert.equal(set.has(nameOf(each)), expected.has(each));
    }),
  );
});

function pack(id: string, size: number, liveBytes: number, kind: 'chunks' | 'pages' = 'chunks'): PackUsage {
  return { id, kind, writer: 'w', size, parts: 10, liveParts: liveBytes === 0 ? 0 : 5, liveBytes };
}

test('packs are chosen by their waste, and small packs if there are many', () => {
  const options = { packSize: 1000, maxWaste: 0.25, mergeAt: 3 };
  const packs = [pack('empty', 1000, 0), pack('good', 1000, 750), pack('wasteful', 1000, 749)];
  const ids = (list: readonly PackUsage[]): string[] => list.map(({ id }) => id);
  const choice = choosePacks(packs, options);
  assert.deepEqual([ids(choice.unused), ids(choice.partial)], [['empty'], ['wasteful']]);
  const small = [pack('a', 100, 100), pack('b', 499, 499), pack('p', 10, 10, 'pages')];
  assert.deepEqual(ids(choosePacks(small, options).partial), []);
  assert.deepEqual(ids(choosePacks([...small, pack('c', 5, 5)], options).partial), ['a', 'b', 'c']);
});
