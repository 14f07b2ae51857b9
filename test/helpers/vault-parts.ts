/** A vault in memory for unit tests, with little more than its keys. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { newId } from '../../src/vault/ids.ts';
import { Namer } from '../../src/vault/names.ts';
import { type PackKind, packOfObject } from '../../src/vault/packs/format.ts';
import { PackWriter } from '../../src/vault/packs/pack-writer.ts';
import type { VaultCore } from '../../src/vault/packs/vault-core.ts';
import { Secrets } from '../../src/vault/secrets.ts';
import { type MemoryStore, openMemoryStore } from './stores/memory-store.ts';
import type { ObjectStore } from '../../src/vault/store/object-store.ts';

export interface TestVault extends VaultCore {
  /** The store below `store`. */
  readonly memory: MemoryStore;
}

export interface TestVaultOptions {
  /** Default 4 KiB. */
  readonly chunkSize?: number;
  /** Default 1 MiB. */
  readonly packSize?: number;
  /** Puts a store between the vault and its memory. */
  readonly wrap?: (memory: MemoryStore) => ObjectStore;
}

export function testVault(options: TestVaultOptions = {}): TestVault {
  const id = newId();
  const memory = openMemoryStore();
  return {
    name: 'memory',
    id,
    memory,
    store: options.wrap?.(memory) ?? memory,
    secrets: Secrets.from(Buffer.alloc(32, 7), id),
    chunkSize: options.chunkSize ?? 4096,
    packSize: options.packSize ?? 1024 * 1024,
  };
}

/** Returns the path of an index in a directory that is removed after the test. */
export function indexPath(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'index-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'index.sqlite');
}

/** Opens an index that is closed and removed after the test. */
export function testIndex(t: TestContext, vault: VaultCore, path = indexPath(t)): ChunkIndex {
  const index = ChunkIndex.open(path, vault.id);
  t.after(() => index.close());
  return index;
}

/** Stores chunks or pages like a writer, and returns their names. Adds the packs to `index`. */
export async function storeParts(
  vault: VaultCore,
  index: ChunkIndex,
  parts: readonly Buffer[],
  options: { kind?: PackKind; condemned?: ReadonlySet<string> } = {},
): Promise<Buffer[]> {
  const kind = options.kind ?? 'chunks';
  const writer = new PackWriter(vault, index, { ...options, kind, writer: newId() });
  const { chunkNameKey, pageNameKey } = vault.secrets;
  const namer = new Namer(kind === 'chunks' ? chunkNameKey : pageNameKey);
  const names = parts.map((part) => namer.name(part));
  for (const [i, part] of parts.entries()) await writer.add(names[i]!, part);
  await writer.seal();
  return names;
}

/** Returns the IDs of the packs in the vault. */
export function packIds(vault: TestVault): string[] {
  return [...vault.memory.objects.keys()].map(packOfObject).filter((id) => id !== undefined);
}
