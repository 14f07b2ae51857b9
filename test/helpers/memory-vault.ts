/** A vault in memory with its own clock, and any number of indexes of it, as if on several machines. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { type MemoryStore, openMemoryStore } from './stores/memory-store.ts';
import { Vault } from '../../src/vault/vault.ts';
import { atEnd, type EndingTest } from './cleanup.ts';
import type { TestImage } from './vault-writer.ts';

export interface MemoryVault {
  readonly store: MemoryStore;
  readonly vault: Vault;
  /** Returns the index of a machine that has not seen the vault yet. */
  readonly newIndex: () => ChunkIndex;
  /** Moves the store's clock forward by milliseconds. */
  readonly tick: (ms: number) => number;
}

/** Makes a vault with chunks of 4 KiB and packs of 1 MiB. Its indexes are closed at the end of the test. */
export async function memoryVault(t: EndingTest): Promise<MemoryVault> {
  let clock = 1_700_000_000_000;
  const store = openMemoryStore({ now: () => clock });
  const vault = await Vault.init(store, {
    keys: [{ material: { kind: 'file', text: '00'.repeat(32) } }],
    chunkSize: 4096,
    packSize: 1024 * 1024,
  });
  const directory = mkdtempSync(join(tmpdir(), 'memory-vault-'));
  atEnd(t, () => rmSync(directory, { recursive: true, force: true }));
  let indexes = 0;
  const newIndex = (): ChunkIndex => {
    const index = ChunkIndex.open(join(directory, `${indexes++}.sqlite`), vault.id);
    atEnd(t, () => index.close());
    return index;
  };
  return { store, vault, newIndex, tick: (ms) => (clock += ms) };
}

/**
 * Returns an image in which every third chunk has content. Numbers from `from` on make the chunks different.
 */
export function spreadImage(from: number, count: number, content = spreadChunk): TestImage {
  return new Map(Array.from({ length: count }, (_, at) => [at * 3, content(from + at)]));
}

function spreadChunk(content: number): Buffer {
  return Buffer.alloc(4096, `content ${content} `);
}
