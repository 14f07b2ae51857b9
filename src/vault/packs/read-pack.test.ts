import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test, { type TestContext } from 'node:test';
import { type TestVault, testIndex, testVault } from '../../../test/helpers/vault-parts.ts';
import { seeded } from '../../../test/helpers/random.ts';
import { newId } from '../ids.ts';
import { Namer } from '../names.ts';
import { type PackKind, packOfObject } from './format.ts';
import { PackWriter } from './pack-writer.ts';
import { openPack, readDirectory } from './read-pack.ts';
import { PackCipher } from './sealing.ts';

const damaged = { code: 'VAULT_DAMAGED' };

/** Returns one pack in memory. */
async function onePack(
  t: TestContext,
  vault: TestVault,
  chunks: readonly Buffer[],
  kind: PackKind = 'chunks',
): Promise<{ id: string; bytes: Buffer; key: string }> {
  const packs = new PackWriter(vault, testIndex(t, vault), { kind, writer: newId(), now: () => 1234 });
  const namer = new Namer(kind === 'chunks' ? vault.secrets.chunkNameKey : vault.secrets.pageNameKey);
  for (const chunk of chunks) await packs.add(namer.name(chunk), chunk);
  await packs.seal();
  const [found] = [...vault.memory.objects];
  assert.ok(found !== undefined && vault.memory.objects.size === 1);
  const [key, { data }] = found;
  return { id: packOfObject(key)!, bytes: data, key };
}

const texts = Array.from({ length: 5 }, (_, i) => Buffer.alloc(300, `chunk ${i} `));
const mixed = [...texts, randomBytes(200), randomBytes(1)];

/** Opens all parts; returns the number of whole parts. */
function wholeParts(vault: TestVault, id: string, bytes: Buffer): number {
  return [...openPack(vault, id, bytes).parts()].filter((part) => 'plain' in part).length;
}

test('a pack can be opened as a whole, and its directory alone', async (t) => {
  for (const kind of ['chunks', 'pages'] as const) {
    const vault = testVault();
    const { id, bytes } = await onePack(t, vault, mixed, kind);
    const opened = openPack(vault, id, bytes);
    const plains = [...opened.parts()].map((part) => ('plain' in part ? part.plain : assert.fail()));
    assert.deepEqual(plains, mixed);
    assert.deepEqual([opened.directory.kind, opened.directory.created], [kind, 1234]);
    assert.deepEqual(
      opened.directory.parts.map(({ encoding }) => encoding),
      [1, 1, 1, 1, 1, 0, 0],
    );
    for (const options of [{}, { size: bytes.length }])
      assert.deepEqual(await readDirectory(vault, id, options), opened.directory);
  }
});

test('an altered bit in any byte of the pack is detected', async (t) => {
  const vault = testVault();
  const { id, bytes, key } = await onePack(t, vault, mixed);
  const random = seeded(1);
  const { parts } = openPack(vault, id, bytes).directory;
  for (let at = 0; at < bytes.length; at++) {
    const altered = Buffer.from(bytes);
    altered[at]! ^= 1 << Math.floor(random() * 8);
    let whole = 0;
    try {
      whole = wholeParts(vault, id, altered);
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'VAULT_DAMAGED');
    }
    assert.ok(whole < mixed.length, `byte ${at}`);
    // If only a part is altered, the others can be saved.
    const inPart = parts.some((p) => at >= p.offset && at < p.offset + p.encodedLength + 16);
    if (inPart) assert.equal(whole, mixed.length - 1);
    else if (at >= 32) {
      vault.memory.objects.set(key, { data: altered, modified: 0 });
      await assert.rejects(readDirectory(vault, id), damaged);
    }
  }
});

test('a pack that was truncated anywhere is detected', async (t) => {
  const vault = testVault();
  const { id, bytes, key } = await onePack(t, vault, mixed);
  for (let length = 0; length < bytes.length; length++) {
    const cut = bytes.subarray(0, length);
    assert.throws(() => openPack(vault, id, cut), damaged);
    vault.memory.objects.set(key, { data: cut, modified: 0 });
    await assert.rejects(readDirectory(vault, id), damaged);
    await assert.rejects(readDirectory(vault, id, { size: bytes.length }), damaged);
  }
  const longer = Buffer.concat([bytes, Buffer.alloc(1)]);
  assert.throws(() => openPack(vault, id, longer), damaged);
});

test('a pack cannot replace another pack, nor a part another part', async (t) => {
  const vault = testVault();
  const { id, bytes } = await onePack(t, vault, mixed);
  const other = newId();
  assert.throws(() => openPack(vault, other, bytes), damaged);
  const renamed = Buffer.from(bytes);
  renamed.write(other, 16, 'hex');
  assert.throws(() => openPack(vault, other, renamed), damaged);
  const swapped = Buffer.from(bytes);
  const { parts } = openPack(vault, id, bytes).directory;
  const [a, b] = [parts[0]!, parts[1]!];
  bytes.copy(swapped, a.offset, b.offset, b.offset + b.encodedLength + 16);
  assert.equal(wholeParts(vault, id, swapped), mixed.length - 1);
});

test('a long directory is read with a second request', async (t) => {
  const vault = testVault();
  const many = Array.from({ length: 3000 }, (_, i) => Buffer.from(`chunk number ${i}`));
  const { id, bytes } = await onePack(t, vault, many);
  let gets = 0;
  const get = vault.store.get.bind(vault.store);
  vault.store.get = (...parameters) => {
    gets++;
    return get(...parameters);
  };
  const directory = await readDirectory(vault, id, { size: bytes.length });
  assert.deepEqual([directory.parts.length, gets], [3000, 2]);
  assert.deepEqual((await readDirectory(vault, id)).parts.length, 3000);
  await assert.rejects(readDirectory(vault, id, { size: bytes.length + 1 }), damaged);
});

test('a part with a false length allocates no more memory than that length', () => {
  const vault = testVault();
  const cipher = new PackCipher(vault.secrets, newId(), 'chunks');
  const seal = (data: Buffer): Buffer => {
    const sealed = Buffer.alloc(data.length + 16);
    cipher.sealInto(sealed, 32, data, 'part');
    return sealed;
  };
  const open = (data: Buffer, plainLength: number): Buffer =>
    cipher.openPart({ offset: 32, encodedLength: data.length, plainLength, encoding: 1 }, seal(data));
  // A zstd frame (RFC 8878): magic, a descriptor with a content size of 1 byte, then one RLE block of 200 bytes.
  const frame = Buffer.from('28b52ffd20c8430600aa', 'hex');
  assert.deepEqual(open(frame, 200), Buffer.alloc(200, 0xaa));
  assert.throws(() => open(frame, 100), damaged);
  assert.throws(() => open(frame, 201), damaged);
  assert.throws(() => open(Buffer.from('not a zstd frame'), 100), damaged);
});
