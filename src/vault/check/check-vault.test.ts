import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { memoryVault, spreadImage } from '../../../test/helpers/memory-vault.ts';
import { seeded } from '../../../test/helpers/random.ts';
import { type TestImage, backUp, readBack } from '../../../test/helpers/vault-writer.ts';
import { readDirectory } from '../packs/read-pack.ts';
import { prune } from '../prune/prune.ts';
import { Vault } from '../vault.ts';
import { checkVault } from './check-vault.ts';
import { repairVault } from './repair.ts';
import { salvageParts } from './salvage.ts';
import { parseZstdFrame } from './zstd-frame.ts';

const chunkSize = 4096;
const size = 1300 * chunkSize;

async function newVault() {
  const made = await memoryVault({ after });
  return { ...made, index: made.newIndex() };
}

/** Half of the chunks are incompressible. */
function chunk(content: number): Buffer {
  if (content % 2 === 0) return Buffer.alloc(chunkSize, `content ${content} `);
  const random = seeded(content);
  return Buffer.from(Array.from({ length: chunkSize }, () => Math.floor(random() * 256)));
}

function image(from: number, count: number): TestImage {
  return spreadImage(from, count, chunk);
}

async function packOf(vault: Vault, store: { objects: ReadonlyMap<string, unknown> }, kind: string) {
  for (const key of store.objects.keys()) {
    const id = key.split('/')[2] ?? '';
    if (key.startsWith('packs/') && (await readDirectory(vault, id)).kind === kind) return { key, id };
  }
  throw new Error(`no pack of ${kind}`);
}

test('a whole vault passes a check, also with all data read', async () => {
  const { vault, store, index } = await newVault();
  const point = await backUp(vault, index, { image: image(0, 40), size });
  const quick = await checkVault(vault, index);
  assert.deepEqual([quick.ok, quick.coverage, quick.packs], [true, 0, 2]);
  assert.deepEqual(
    quick.points.map((each) => [each.point, each.whole]),
    [[point.id, true]],
  );
  assert.deepEqual((await checkVault(vault, index, { readData: true })).coverage, 1);
  store.objects.set('README.txt', { data: Buffer.from('x'), modified: 0 });
  store.objects.set('packs/aa/notes', { data: Buffer.from('x'), modified: 0 });
  const strange = await checkVault(vault, index);
  assert.deepEqual([strange.ok, strange.foreign], [true, ['README.txt', 'packs/aa/notes']]);
});

test('an altered index row stops neither a check nor a repair nor a backup', async () => {
  const { vault, index } = await newVault();
  await backUp(vault, index, { image: image(0, 40), size });
  const flip = (): void => index.database.exec('UPDATE packs SET created = created + 1');
  flip();
  assert.equal((await checkVault(vault, index)).ok, true);
  flip();
  assert.equal((await repairVault(vault, index)).after.ok, true);
  assert.equal([...index.packs()].length, 2);
  flip();
  await backUp(vault, index, { image: image(0, 40), size });
  assert.equal([...index.packs()].length, 2);
});

for (const [what, statement] of Object.entries({
  'all rows': 'DELETE FROM parts',
  'a row of a page': 'DELETE FROM parts WHERE pack = (SELECT number FROM packs WHERE kind = 2 LIMIT 1)',
  'some rows of chunks': 'DELETE FROM parts WHERE unicode(substr(hex(name), 1, 1)) % 2 = 0',
  'a pack': 'DELETE FROM packs WHERE number = (SELECT max(number) FROM packs)',
}))
  test(`if the index loses ${what} after a check has compared it with the packs, the vault is whole`, async () => {
    const { vault, store, index } = await newVault();
    await backUp(vault, index, { image: image(0, 40), size });
    let isDamaged = false;
    const damage = (): void => {
      isDamaged = true;
      index.database.exec(statement);
    };
    // It asks for foreign objects after it has compared the packs, and before it visits the points.
    const foreign = async function* (...options: Parameters<typeof store.foreign>) {
      damage();
      yield* store.foreign(...options);
    };
    const { ok, points } = await checkVault(await Vault.open({ ...store, foreign }, vault.secrets), index);
    assert.deepEqual([isDamaged, ok, points.map(({ whole }) => whole)], [true, true, [true]]);
  });

test('a missing pack is reported with the affected ranges and points', async () => {
  const { vault, store, index, newIndex } = await newVault();
  await backUp(vault, index, { image: image(0, 5), size, finished: new Date(1000) });
  const first = new Set(store.objects.keys());
  await backUp(vault, index, { image: new Map([...image(0, 5), [1299, chunk(77)]]), size });
  const added = [...store.objects.keys()].filter((key) => key.startsWith('packs/') && !first.has(key));
  for (const key of added) {
    const { kind } = await readDirectory(vault, key.split('/')[2]!);
    if (kind === 'chunks') store.objects.delete(key);
  }
  const result = await checkVault(vault, index);
  assert.equal(result.ok, false);
  assert.equal(result.missingPacks.length, 1);
  assert.deepEqual(
    result.points.map(({ whole, devices }) => [whole, devices[0]!.lost]),
    [
      [true, []],
      [false, [{ offset: 1299 * chunkSize, length: chunkSize }]],
    ],
  );
  const stranger = await checkVault(vault, newIndex());
  assert.deepEqual(stranger.missingPacks, [], 'the name of the pack is not known');
  assert.deepEqual(stranger.points, result.points);
});

test('a lost page affects everything below it', async () => {
  const { vault, store, index } = await newVault();
  await backUp(vault, index, { image: image(0, 400), size });
  const { key } = await packOf(vault, store, 'pages');
  store.objects.delete(key);
  const { points } = await checkVault(vault, index);
  assert.deepEqual(points[0]?.devices[0]?.lost, [{ offset: 0, length: size }]);
});

test('repair saves the readable parts of a truncated pack; the next backup stores the rest again', async () => {
  for (const cutAt of [0.3, 0.7, 0.999]) {
    const { vault, store, index, newIndex } = await newVault();
    const first = await backUp(vault, index, { image: image(0, 40), size });
    const { key, id } = await packOf(vault, store, 'chunks');
    const { data, modified } = store.objects.get(key)!;
    store.objects.set(key, { data: data.subarray(0, Math.floor(data.length * cutAt)), modified });
    const { before, after: result, condemned, salvaged } = await repairVault(vault, newIndex());
    assert.deepEqual(
      before.damagedPacks.map(({ pack, parts }) => [pack, parts]),
      [[id, undefined]],
    );
    assert.deepEqual(condemned, [id]);
    const lost = result.points[0]!.devices[0]!.lostBytes / chunkSize;
    assert.equal(salvaged.parts + lost, 40);
    assert.ok(salvaged.parts >= Math.floor(40 * cutAt) - 8, `${salvaged.parts} parts of ${40 * cutAt}`);
    await backUp(vault, index, { image: image(0, 40), size });
    const healed = await checkVault(vault, newIndex(), { readData: true });
    assert.equal(healed.ok, true);
    assert.deepEqual(await readBack(vault, newIndex(), first.devices[0]!), image(0, 40));
    await prune(vault, index);
    assert.equal(store.objects.has(key), false);
    assert.equal((await checkVault(vault, newIndex(), { readData: true })).ok, true);
  }
});

test('any altered bit of a pack costs at most one part, or only the directory', async () => {
  const { vault, store, index, newIndex } = await newVault();
  await backUp(vault, index, { image: image(0, 12), size });
  const { key, id } = await packOf(vault, store, 'chunks');
  const { data, modified } = store.objects.get(key)!;
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: data.length * 8 - 1 }), async (bit) => {
      const altered = Buffer.from(data);
      altered[bit >> 3]! ^= 1 << (bit & 7);
      store.objects.set(key, { data: altered, modified });
      const found = await checkVault(vault, newIndex(), { readData: true });
      assert.deepEqual(
        found.damagedPacks.map(({ pack }) => pack),
        [id],
      );
      let parts = 0;
      for await (const part of salvageParts(vault, id, altered))
        parts += part.plain.length === chunkSize ? 1 : 0;
      assert.ok(parts >= 11, `${parts} of 12 parts with bit ${bit} altered`);
    }),
    { numRuns: 25 },
  );
});

test('the end of a zstd frame is found', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 5000 }), fc.boolean(), (bytes, repeat) => {
      const plain = repeat ? Buffer.alloc(300_000, Buffer.from(bytes.length === 0 ? [1] : bytes)) : bytes;
      const frame = zstdCompressSync(plain);
      const found = parseZstdFrame(Buffer.concat([frame, Buffer.from('what follows')]));
      assert.equal(found?.length, frame.length);
      if (found.contentLength !== undefined) assert.equal(found.contentLength, plain.length);
      for (let end = 0; end < Math.min(frame.length, 40); end++)
        assert.equal(parseZstdFrame(frame.subarray(0, end)), undefined);
    }),
  );
});
