/** A writer whose index loses rows during the job publishes its point: the store has all data of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memoryVault, spreadImage } from '../../../test/helpers/memory-vault.ts';
import { backUp, readBack } from '../../../test/helpers/vault-writer.ts';
import { prune } from '../prune/prune.ts';
import { declareStale } from '../prune/participants.ts';
import { WriterSession } from './writer-session.ts';

const size = 3000 * 4096;
const image = spreadImage(0, 100);

test('a writer whose index loses rows can build on an earlier point', async (t) => {
  const { vault, newIndex } = await memoryVault(t);
  const index = newIndex();
  const point = await backUp(vault, index, { image, size });
  const session = await WriterSession.begin(vault, index);
  index.database.exec('DELETE FROM parts');
  assert.equal(await session.keep(point.devices[0]!), true);
  await session.end();
});

test('a writer that looks at all its data again publishes, although its index loses rows', async (t) => {
  const { vault, newIndex } = await memoryVault(t);
  const index = newIndex();
  const point = await backUp(vault, index, {
    image,
    size,
    onPublish: () => {
      // As if a prune had deleted a pack, and a refresh had dropped it.
      index.dropPack('00'.repeat(16));
      index.database.exec('DELETE FROM parts');
    },
  });
  assert.deepEqual(await readBack(vault, newIndex(), point.devices[0]!), new Map(image));
});

test('a writer that was declared stale, and whose index loses rows, does not take back a whole point', async (t) => {
  const { vault, store, newIndex } = await memoryVault(t);
  const index = newIndex();
  const put = store.put.bind(store);
  store.put = async (key, ...rest) => {
    await put(key, ...rest);
    if (!key.startsWith('points/')) return;
    await declareStale(vault, key.slice('points/'.length));
    index.database.exec('DELETE FROM parts');
  };
  const point = await backUp(vault, index, { image, size });
  await prune(vault, newIndex());
  assert.deepEqual(await readBack(vault, newIndex(), point.devices[0]!), new Map(image));
});
