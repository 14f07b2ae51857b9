/** A vault in memory for unit tests, of little more than its keys. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { newId } from '../../src/vault/ids.ts';
import type { VaultParts } from '../../src/vault/packs/vault-parts.ts';
import { Secrets } from '../../src/vault/secrets.ts';
import { type MemoryStore, openMemoryStore } from '../../src/vault/store/memory.ts';

export interface TestVault extends VaultParts {
  readonly store: MemoryStore;
}

export function testVault(options: { chunkSize?: number; packSize?: number } = {}): TestVault {
  const id = newId();
  return {
    name: 'memory',
    id,
    store: openMemoryStore(),
    secrets: Secrets.from(Buffer.alloc(32, 7), id),
    chunkSize: options.chunkSize ?? 4096,
    packSize: options.packSize ?? 1024 * 1024,
  };
}

/** The path of an index that is removed after the test. */
export function indexPath(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'index-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'index.sqlite');
}

/** An index that is closed and removed after the test. */
export function testIndex(t: TestContext, vault: VaultParts, path = indexPath(t)): ChunkIndex {
  const index = ChunkIndex.open(path, vault.id);
  t.after(() => index.close());
  return index;
}
