/** Data counts as lost only if the store proves it: not because of the local index, nor because of a prune. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { indexPath, packIds, storeParts, testIndex, testVault } from '../../../test/helpers/vault-parts.ts';
import { systemClock } from '../../base/clock.ts';
import { type PackDirectory, packObject } from '../packs/format.ts';
import { readDirectory } from '../packs/read-pack.ts';
import { ChunkIndex } from './chunk-index.ts';
import { provenWalk } from './proven.ts';
import { refreshIndex } from './refresh.ts';
import { isIntact } from './rows.ts';

const chunks = Array.from({ length: 40 }, () => randomBytes(4000));

/** A vault with one pack, and an index of it. `walk` returns how many chunks the index lacks, and counts its calls. */
async function filled(t: TestContext, clock = systemClock) {
  const vault = testVault();
  const index = ChunkIndex.open(indexPath(t), vault.id, { clock });
  t.after(() => index.close());
  const names = await storeParts(vault, index, chunks);
  await refreshIndex(vault, index);
  const calls = { count: 0, listings: 0 };
  const walk = (damage?: () => void) => (): Promise<number> => {
    calls.count++;
    damage?.();
    return Promise.resolve(names.filter((name) => !index.has(name)).length);
  };
  const list = vault.memory.list.bind(vault.memory);
  vault.memory.list = (...args) => {
    calls.listings++;
    return list(...args);
  };
  return { vault, index, names, calls, walk };
}

const isWhole = (missing: number): boolean => missing === 0;

const damages = {
  'all rows are gone': 'DELETE FROM parts',
  'one row is gone': 'DELETE FROM parts WHERE name = (SELECT min(name) FROM parts)',
  'a pack is gone': 'DELETE FROM packs',
};

for (const [what, statement] of Object.entries(damages))
  test(`if ${what} from the index during a walk, and again after it was rebuilt, no data is lost`, async (t) => {
    const { vault, index, calls, walk } = await filled(t);
    const damage = (): void => {
      if (calls.count <= 2) index.database.exec(statement);
    };
    assert.equal(await provenWalk(vault, index, { walk: walk(damage), isWhole }), 0);
    assert.equal(calls.count, 3);
  });

test('data that a prune moves during each walk is not lost', async (t) => {
  const { vault, index, calls, walk } = await filled(t);
  const objects = vault.memory.objects;
  const move = async (): Promise<void> => {
    const [old] = packIds(vault) as [string];
    // Another machine's index finds nothing, so it stores all chunks again.
    await storeParts(vault, testIndex(t, vault), chunks);
    objects.delete(packObject(old));
    index.dropPack(old);
  };
  const missing = await provenWalk(vault, index, {
    walk: async () => {
      if (calls.count < 3) await move();
      return walk()();
    },
    isWhole,
  });
  assert.equal(missing, 0);
});

test('lost data is reported after one new index; the index is rebuilt once, also if the clock is set back', async (t) => {
  for (const backMs of [0, 3_600_000]) {
    let isBack = false;
    const clock = { ...systemClock, now: () => Date.now() - (isBack ? backMs : 0) };
    const { vault, index, calls, walk } = await filled(t, clock);
    for (const pack of packIds(vault)) vault.memory.objects.delete(packObject(pack));
    await refreshIndex(vault, index);
    calls.listings = 0;
    const { generation } = index;
    const missing = await provenWalk(vault, index, { walk: walk(() => (isBack = true)), isWhole });
    assert.deepEqual([missing, index.generation - generation], [chunks.length, 1]);
    assert.deepEqual(calls, { count: 2, listings: 3 });
  }
});

test('an index that is damaged again each time is reported itself, and no lost data', async (t) => {
  const { vault, index, walk } = await filled(t);
  const damage = (): void => index.database.exec('DELETE FROM parts');
  await assert.rejects(provenWalk(vault, index, { walk: walk(damage), isWhole }), {
    code: 'VAULT_INDEX_DAMAGED',
    message: /damaged again each time/,
  });
});

test('all rows are verified: their sums, their number, and that the file is still the same', async (t) => {
  const { vault, index } = await filled(t);
  const [pack] = packIds(vault) as [string];
  const directory: PackDirectory = await readDirectory(vault, pack);
  assert.equal(await isIntact(index, index.generation), true);
  assert.equal(await isIntact(index, index.generation - 1), false);
  for (const statement of [
    'DELETE FROM parts WHERE name = (SELECT max(name) FROM parts)',
    'UPDATE parts SET offset = offset + 16 WHERE name = (SELECT max(name) FROM parts)',
    'UPDATE packs SET entries = entries - 1',
  ]) {
    index.database.exec(statement);
    assert.equal(await isIntact(index, index.generation), false, statement);
    index.addPack(directory);
    assert.equal(await isIntact(index, index.generation), true, 'a new file');
  }
  index.dropPack(pack);
  assert.equal(await isIntact(index, index.generation), true, 'rows of dropped packs do not count');
});
