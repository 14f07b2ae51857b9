import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { packIds, testIndex, testVault } from '../../test/helpers/vault-parts.ts';
import { seeded } from '../../test/helpers/random.ts';
import { isZero } from '../base/bytes.ts';
import { PointImage } from './image.ts';
import { newId } from './ids.ts';
import type { ChunkIndex } from './index/chunk-index.ts';
import { buildMap } from './maps/build.ts';
import { Namer, nameLength } from './names.ts';
import { packObject } from './packs/format.ts';
import { PackWriter } from './packs/pack-writer.ts';
import type { VaultCore } from './packs/vault-core.ts';
import { type CountingStore, countingStore } from '../../test/helpers/stores/counting-store.ts';

const chunkSize = 4096;

/** Stores an image as a backup does. */
async function store(
  vault: VaultCore,
  index: ChunkIndex,
  content: Buffer,
): Promise<{ path: string; size: number; root: string; levels: number }> {
  const packs = (kind: 'chunks' | 'pages'): PackWriter =>
    new PackWriter(vault, index, { kind, writer: newId() });
  const [chunks, pages] = [packs('chunks'), packs('pages')];
  const namer = new Namer(vault.secrets.chunkNameKey);
  const names = Buffer.alloc(Math.ceil(content.length / chunkSize) * nameLength);
  for (let at = 0; at < content.length; at += chunkSize) {
    const chunk = Buffer.alloc(chunkSize);
    content.copy(chunk, 0, at, at + chunkSize);
    if (isZero(chunk)) continue;
    const name = namer.name(chunk);
    name.copy(names, (at / chunkSize) * nameLength);
    await chunks.add(name, chunk);
  }
  await chunks.seal();
  const { root, levels } = await buildMap({
    size: content.length,
    chunkSize,
    changed: (first, count) => names.subarray(first * nameLength, (first + count) * nameLength),
    namer: new Namer(vault.secrets.pageNameKey),
    pages,
  });
  await pages.seal();
  return { path: '/dev/test', size: content.length, root: root.toString('hex'), levels };
}

/** Data and holes of many chunks across the border of two map pages, and a short last chunk. */
function someContent(): Buffer {
  const content = Buffer.alloc(1300 * chunkSize + 777);
  const random = seeded(5);
  for (let at = 0; at < content.length;) {
    const length = Math.floor(random() * 40 * chunkSize);
    if (random() < 0.5) randomBytes(Math.min(length, content.length - at)).copy(content, at);
    at += length;
  }
  content[content.length - 1] = 1;
  return content;
}

async function setUp(
  t: TestContext,
  content: Buffer,
): Promise<{ image: (options?: object) => PointImage; gets: () => number; deletePack: () => Promise<void> }> {
  let counting: CountingStore | undefined;
  const vault = testVault({ wrap: (memory) => (counting = countingStore(memory)) });
  const index = testIndex(t, vault);
  const source = await store(vault, index, content);
  return {
    image: (options = {}) => PointImage.open(vault, index, source, options),
    gets: () => counting!.counts().requests.get,
    deletePack: () => vault.store.delete(packObject(packIds(vault)[0]!)),
  };
}

test('an image reads like the device at any offset and length', async (t) => {
  const content = someContent();
  const { image } = await setUp(t, content);
  const images = [image(), image({ cacheBytes: 5 * chunkSize }), image({ runAhead: 0 })];
  await fc.assert(
    fc.asyncProperty(
      fc.nat({ max: 2 }),
      fc.nat({ max: content.length }),
      fc.nat({ max: 20 * chunkSize }),
      async (which, offset, most) => {
        const length = Math.min(most, content.length - offset);
        const read = await images[which]!.read(offset, length);
        assert.ok(read.equals(content.subarray(offset, offset + length)));
      },
    ),
  );
  for (const each of images) {
    assert.ok((await each.read(0, content.length)).equals(content));
    await assert.rejects(each.read(content.length - 1, 2), RangeError);
    await assert.rejects(each.read(-1, 2), RangeError);
  }
});

test('data is walked in order and, with the holes, equals the device', async (t) => {
  const content = someContent();
  const { image } = await setUp(t, content);
  for (const options of [{}, { runAhead: 0 }, { runAhead: 3 * chunkSize }]) {
    const back = Buffer.alloc(content.length);
    let last = -1;
    for await (const { offset, data } of image(options).data()) {
      assert.ok(offset > last);
      last = offset;
      data.copy(back, offset);
    }
    assert.ok(back.equals(content));
  }
  const part = Buffer.alloc(content.length);
  const [from, to] = [1000 * chunkSize, 1100 * chunkSize];
  for await (const { offset, data } of image().data(from, to)) data.copy(part, offset);
  assert.ok(part.subarray(from, to).equals(content.subarray(from, to)));
  assert.ok(isZero(part.subarray(0, from)) && isZero(part.subarray(to)));
  let covered = 0;
  for await (const { offset, length } of image().extents()) {
    assert.ok(isZero(content.subarray(covered, offset)));
    covered = offset + length;
  }
  assert.equal(covered, content.length);
});

test('sequential reads are read ahead, random reads are not', async (t) => {
  const content = randomBytes(1024 * chunkSize);
  const { image, gets } = await setUp(t, content);
  const sequential = image({ runAhead: 256 * chunkSize });
  let before = gets();
  for (let at = 0; at < content.length; at += 4 * chunkSize) {
    const read = await sequential.read(at, 4 * chunkSize);
    assert.ok(read.equals(content.subarray(at, at + 4 * chunkSize)));
  }
  assert.ok(gets() - before < 40, `${gets() - before} requests for 256 reads`);

  const jumping = image({ runAhead: 64 * chunkSize });
  before = gets();
  for (let i = 0; i < 50; i++) await jumping.read(((i * 379) % 1024) * chunkSize, chunkSize);
  assert.ok(gets() - before <= 55, `${gets() - before} requests for 50 reads`);
});

test('an error about lost data names the device and the range', async (t) => {
  const content = randomBytes(20 * chunkSize);
  const { image, deletePack } = await setUp(t, content);
  const opened = image();
  await deletePack();
  await assert.rejects(opened.read(5 * chunkSize + 7, 10), {
    code: 'VAULT_CHUNK_LOST',
    message: /^\/dev\/test, bytes 20480 to 24576: no pack of memory holds/,
  });
});

test('an empty device and a device of zeros can be read', async (t) => {
  for (const content of [Buffer.alloc(0), Buffer.alloc(100 * chunkSize + 1)]) {
    const { image } = await setUp(t, content);
    assert.ok((await image().read(0, content.length)).equals(content));
    assert.ok((await image().data().next()).done);
  }
});
