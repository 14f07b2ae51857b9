import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test from 'node:test';
import { testIndex, testVault } from '../../../test/helpers/vault-parts.ts';
import { newId } from '../ids.ts';
import { Namer } from '../names.ts';
import { PackWriter } from './pack-writer.ts';
import { PartReader } from './part-reader.ts';

test('what was added is read back, from several packs, by another index too', async (t) => {
  const vault = testVault({ chunkSize: 65536 });
  const index = testIndex(t, vault);
  const writer = newId();
  const packs = new PackWriter(vault, index, { kind: 'chunks', writer });
  const namer = new Namer(vault.secrets.chunkNameKey);
  const chunks = Array.from({ length: 100 }, (_, i) =>
    i % 2 === 0 ? randomBytes(65536) : Buffer.alloc(65536, `text ${i}`),
  );
  const names = chunks.map((chunk) => namer.name(chunk));
  for (const [i, chunk] of chunks.entries()) await packs.add(names[i]!, chunk);
  await packs.seal();
  assert.equal(packs.counts.chunks, 100);
  assert.equal(packs.counts.packs, vault.memory.objects.size);
  assert.ok(packs.counts.packs >= 3);
  assert.equal(index.stats().parts, 100);

  for (const at of [index, testIndex(t, vault)]) {
    const reader = new PartReader(vault, at);
    const read = await reader.getMany(names);
    chunks.forEach((chunk, i) => assert.ok(chunk.equals(read[i]!)));
  }
});
