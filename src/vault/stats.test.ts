import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { backUp } from '../../test/helpers/vault-writer.ts';
import { ChunkIndex } from './index/chunk-index.ts';
import { vaultStats } from './stats.ts';
import { openMemoryStore } from '../../test/helpers/stores/memory-store.ts';
import { Vault } from './vault.ts';

const scratch = mkdtempSync(join(tmpdir(), 'vault-stats-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

test('statistics show the effect of deduplication and compression', async () => {
  const vault = await Vault.init(openMemoryStore(), {
    keys: [{ material: { kind: 'file', text: '00'.repeat(32) } }],
    chunkSize: 4096,
    packSize: 1024 * 1024,
  });
  const index = ChunkIndex.open(join(scratch, 'index.sqlite'), vault.id);
  const empty = await vaultStats(vault, index);
  assert.deepEqual([empty.points, empty.deduplication, empty.compression], [0, undefined, undefined]);
  const image = new Map([0, 1, 2, 3].map((at) => [at, Buffer.alloc(4096, at + 1)]));
  await backUp(vault, index, { image, size: 1024 * 1024 });
  await backUp(vault, index, { image, size: 1024 * 1024 });
  const stats = await vaultStats(vault, index);
  assert.deepEqual(
    [stats.points, stats.images, stats.machines, stats.usedBytes, stats.packs],
    [2, 2, 1, 8 * 4096, 2],
  );
  assert.deepEqual([stats.chunks.parts, stats.chunks.plainBytes, stats.pages.parts], [4, 4 * 4096, 1]);
  assert.equal(stats.deduplication, 2);
  assert.ok(stats.compression! > 50);
  index.close();
});
