/** A vault in memory with a clock of its own, and as many machines' indexes of it as a test wants. */
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
  /** Of a machine that has not seen the vault yet. */
  readonly newIndex: () => ChunkIndex;
  /** Puts the store's clock forward by milliseconds. */
  readonly tick: (ms: number) => number;
}

/** Chunks of 4 KiB, packs of 1 MiB. Its indexes end with the test. */
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

/** Every third chunk holds something; numbers from `from` on tell them apart. */
export function spreadImage(from: number, count: number, content = spreadChunk): TestImage {
  return new Map(Array.from({ length: count }, (_, at) => [at * 3, content(from + at)]));
}

function spreadChunk(content: number): Buffer {
  return Buffer.alloc(4096, `content ${content} `);
}
