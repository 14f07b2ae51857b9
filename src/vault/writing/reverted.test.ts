/** Writers of a machine whose memory was restored from a snapshot or cloned: random numbers and IDs repeat. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memoryVault, spreadImage } from '../../../test/helpers/memory-vault.ts';
import { repeatNumbers } from '../../../test/helpers/repeated-numbers.ts';
import { backUp, readBack } from '../../../test/helpers/vault-writer.ts';
import { Namer } from '../names.ts';
import { PackWriter } from '../packs/pack-writer.ts';
import { listPoints } from '../points/points.ts';
import { WriterSession } from './writer-session.ts';

const size = 200 * 4096;

test('two clones of one snapshot fill packs with different IDs', async (t) => {
  const { vault, store, newIndex } = await memoryVault(t);
  repeatNumbers(t);
  const namer = new Namer(vault.secrets.chunkNameKey);
  for (const content of ['one', 'other']) {
    const packs = new PackWriter(vault, newIndex(), {
      kind: 'chunks',
      writer: 'ab'.repeat(16),
      now: () => 1,
    });
    for (const chunk of [Buffer.alloc(4096, 'the same'), Buffer.alloc(4096, content)])
      await packs.add(namer.name(chunk), chunk);
    await packs.seal();
  }
  const packs = [...store.objects].filter(([key]) => key.startsWith('packs/'));
  assert.equal(packs.length, 2, 'so no key seals two contents, and no pack is replaced');
});

test('a writer whose ID a clone has used publishes nothing and deletes nothing', async (t) => {
  const { vault, store, newIndex } = await memoryVault(t);
  const index = newIndex();
  const [first, second] = [spreadImage(0, 40), spreadImage(1000, 40)];
  // The snapshot is taken after the writer has begun.
  const session = await WriterSession.begin(vault, index);
  const begin = WriterSession.begin.bind(WriterSession);
  WriterSession.begin = () => Promise.resolve(session);
  t.after(() => (WriterSession.begin = begin));
  const point = await backUp(vault, index, { image: first, size });
  const published = store.objects.get(`points/${point.id}`)!.data;
  await assert.rejects(backUp(vault, newIndex(), { image: second, size }), {
    code: 'VAULT_POINT_WITHDRAWN',
    message: /a clone or snapshot of this machine has published/,
  });
  assert.ok(store.objects.get(`points/${point.id}`)!.data.equals(published));
  assert.equal(session.mayStillAppear, false);
  assert.deepEqual(await readBack(vault, newIndex(), point.devices[0]!), new Map(first));
});

test('a writer that finds its ID taken does not end the other writer', async (t) => {
  const { vault, store, newIndex } = await memoryVault(t);
  repeatNumbers(t);
  const owner = (pid: number) => ({ host: 'h', machine: 'm', boot: 'b', pid, start_time: 1 });
  const { id } = await WriterSession.begin(vault, newIndex(), { owner: owner(1) });
  await assert.rejects(WriterSession.begin(vault, newIndex(), { owner: owner(2) }), {
    code: 'VAULT_OBJECT_EXISTS',
  });
  assert.equal(store.objects.has(`writers/${id}`), true);
  assert.equal(store.objects.has(`writers/${id}.end`), false);
});

test('if the snapshot is older than the writer, the second writer finds its ID taken', async (t) => {
  const { vault, newIndex } = await memoryVault(t);
  repeatNumbers(t);
  const point = await backUp(vault, newIndex(), { image: spreadImage(0, 40), size });
  t.mock.method(Date, 'now', () => 1);
  await assert.rejects(backUp(vault, newIndex(), { image: spreadImage(500, 40), size }), {
    code: 'VAULT_OBJECT_EXISTS',
    message: new RegExp(`already has an object writers/${point.id} `),
  });
  const { points } = await listPoints(vault);
  assert.deepEqual(
    points.map(({ id }) => id),
    [point.id],
  );
});
