import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { KiB } from '../../base/bytes.ts';
import { PointImage } from '../image.ts';
import { ChunkIndex } from '../index/chunk-index.ts';
import { newId } from '../ids.ts';
import { newKeyFileText } from '../key-material.ts';
import { PartReader } from '../packs/part-reader.ts';
import { openDirectoryStore } from '../store/directory.ts';
import { Vault } from '../vault.ts';
import { NamesFile } from './names-file.ts';
import type { ImageRoot } from '../../block/target.ts';
import { type ImageInTheMaking, VaultTarget } from './vault-target.ts';

const chunkSize = 4 * KiB;
const chunks = 40;
const size = chunks * chunkSize - 1000;

async function setUp(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'vault-target-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const store = await openDirectoryStore(join(directory, 'vault'), { create: true });
  t.after(() => store.close());
  const vault = await Vault.init(store, {
    chunkSize,
    keys: [{ material: { kind: 'file', text: newKeyFileText() } }],
  });
  const indexPath = join(directory, 'index');
  const namesPath = join(directory, 'names');
  const target = (base: ImageRoot | undefined, fresh = true) => {
    if (fresh) NamesFile.create(namesPath);
    const making: ImageInTheMaking = {
      location: { kind: 'directory', path: join(directory, 'vault') },
      settings: {},
      secrets: vault.secrets.toMessage(),
      indexPath,
      writer: newId(),
      condemned: [],
      namesPath,
      base,
      level: 1,
    };
    return VaultTarget.open(making, size);
  };
  const read = async (root: ImageRoot): Promise<Buffer> => {
    const index = ChunkIndex.open(indexPath, vault.id);
    const image = new PointImage(new PartReader(vault, index), { path: 'x', size, ...root }, chunkSize);
    const data = await image.read(0, size);
    index.close();
    return data;
  };
  return { target, read };
}

function everything(): Bitmap {
  const all = new Bitmap(size, chunkSize);
  all.fill(true);
  return all;
}

test('property: images written by two connections equal a plain buffer, image after image', async (t) => {
  const { target, read } = await setUp(t);
  const model = Buffer.alloc(chunks * chunkSize);
  let base: ImageRoot | undefined;
  const write = fc.record({
    chunk: fc.nat(chunks - 1),
    count: fc.integer({ min: 1, max: 6 }),
    what: fc.constantFrom('random', 'zeroes', 'zero data', 'the same'),
    by: fc.nat(1),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(write, { maxLength: 12 }), async (writes) => {
      const targets = [await target(base), await target(base, false)];
      for (const { chunk, count, what, by } of writes) {
        const offset = chunk * chunkSize;
        const length = Math.min(count, chunks - chunk) * chunkSize;
        const part = model.subarray(offset, offset + length);
        if (what === 'random') randomBytes(length).copy(part);
        else if (what !== 'the same') part.fill(0);
        if (what === 'zeroes') await targets[by]!.writeZeroes(offset, length);
        else await targets[by]!.write(offset, Buffer.from(part));
      }
      for (const each of targets) await each.seal();
      assert.deepEqual(Buffer.from(await targets[1]!.read(1000, 50_000)), model.subarray(1000, 51_000));
      base = await targets[0]!.buildMap(everything(), everything());
      for (const each of targets) await each.close();
      // The last chunk is padded beyond the end of the device.
      assert.deepEqual(await read(base), model.subarray(0, size));
    }),
    { numRuns: 15 },
  );
});

test('unused chunks are left out; ranges that were not touched stay', async (t) => {
  const { target, read } = await setUp(t);
  const first = await target(undefined);
  const data = randomBytes(10 * chunkSize);
  await first.write(0, data);
  await first.seal();
  const base = await first.buildMap(everything(), everything());
  await first.close();
  const second = await target(base);
  const fresh = randomBytes(chunkSize);
  await second.write(2 * chunkSize, fresh);
  await second.seal();
  const used = everything();
  used.clear(5 * chunkSize, 2 * chunkSize);
  const touched = new Bitmap(size, chunkSize);
  touched.mark(2 * chunkSize, chunkSize);
  touched.mark(5 * chunkSize, 2 * chunkSize);
  const root = await second.buildMap(touched, used);
  await second.close();
  fresh.copy(data, 2 * chunkSize);
  data.fill(0, 5 * chunkSize, 7 * chunkSize);
  assert.deepEqual((await read(root)).subarray(0, data.length), data);
});

test('a map that names a chunk which was never sealed is refused', async (t) => {
  const { target } = await setUp(t);
  const lost = await target(undefined);
  await lost.write(0, randomBytes(chunkSize));
  // The connection of this chunk is lost before it has sealed.
  await lost.close();
  const other = await target(undefined, false);
  await other.seal();
  await assert.rejects(other.buildMap(everything(), everything()), { code: 'INTERNAL', message: /chunk 0 / });
  await other.close();
});

test('zeros replace data of the base, and a discarded base is not read', async (t) => {
  const { target, read } = await setUp(t);
  const first = await target(undefined);
  await first.write(0, randomBytes(4 * chunkSize));
  await first.seal();
  const base = await first.buildMap(everything(), everything());
  await first.close();
  const second = await target(base);
  second.discardBase();
  await second.seal();
  assert.deepEqual(Buffer.from(await second.read(0, size)), Buffer.alloc(size));
  const root = await second.buildMap(everything(), everything());
  await second.close();
  assert.deepEqual(await read(root), Buffer.alloc(size));
});
