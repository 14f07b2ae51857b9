/**
 * Updates the index to the packs that exist (docs/formats/vault.md, "Writing a point", step 3). Directories of new
 * packs are read and added, and packs that are gone are dropped. Only one refresh runs at a time on this machine, so
 * no pack is added after a later refresh has missed it. Memory holds a few directories, regardless of the size of the
 * vault.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { inParallel } from '../../base/in-parallel.ts';
import { type PackDirectory, packOfObject } from '../packs/format.ts';
import { readDirectory } from '../packs/read-pack.ts';
import type { VaultCore } from '../packs/vault-core.ts';
import type { ChunkIndex } from './chunk-index.ts';
import { Listing, type ListedPack } from './listing.ts';
import { refreshLock } from './lock.ts';
import { sweep } from './sweep.ts';

export interface RefreshOptions {
  readonly signal?: AbortSignal | undefined;
  /** Number of packs read and number of packs to read. */
  readonly progress?: ((done: number, total: number) => void) | undefined;
  /** Number of directories that are read in parallel. Default: 8. */
  readonly parallel?: number;
}

export interface DamagedPack {
  readonly pack: string;
  readonly reason: string;
}

export interface Refreshed {
  /** Number of packs. */
  readonly added: number;
  readonly dropped: number;
  /** Packs whose directories cannot be read. The index has none of their parts. */
  readonly damaged: readonly DamagedPack[];
}

/** Number of packs per transaction: about 20 ms in a large index. */
const batchSize = 4;
const mostAttempts = 3;

/** Rejects with FILE_ERROR, VAULT_INDEX_DAMAGED, errors of the store, and the signal's reason. */
export async function refreshIndex(
  vault: VaultCore,
  index: ChunkIndex,
  options: RefreshOptions = {},
): Promise<Refreshed> {
  const release = await refreshLock(index, options.signal);
  try {
    index.reopenIfReplaced();
    return await refreshLocked(vault, index, options);
  } finally {
    release();
  }
}

/** Like `refreshIndex`, for a caller that holds the lock. If the file turns out to be damaged, it is rebuilt. */
export async function refreshLocked(
  vault: VaultCore,
  index: ChunkIndex,
  options: RefreshOptions = {},
): Promise<Refreshed> {
  for (let attempt = 1; ; attempt++) {
    const { generation } = index;
    try {
      return await refresh(vault, index, options);
    } catch (error) {
      const isDamaged = error instanceof AgentError && error.code === 'VAULT_INDEX_DAMAGED';
      // Other work of this thread may have found the damage while this call waited for the store.
      if (attempt === mostAttempts || !(isDamaged || index.generation !== generation)) throw error;
      options.signal?.throwIfAborted();
      index.reopenIfReplaced();
    }
  }
}

async function refresh(vault: VaultCore, index: ChunkIndex, options: RefreshOptions): Promise<Refreshed> {
  const { signal } = options;
  // Counted before the listing: a writer that adds a pack later checks again whether it exists.
  index.countRefresh();
  index.noteBegun();
  const listing = new Listing(index);
  try {
    let batch: ListedPack[] = [];
    for await (const { key, size } of vault.store.list('packs/', { signal })) {
      const id = packOfObject(key);
      if (id === undefined) continue;
      batch.push({ id, size });
      if (batch.length >= 1000) {
        listing.add(batch);
        batch = [];
      }
    }
    listing.add(batch);

    // New packs first, so that data moved by a prune is never missing in between.
    const reading = new Reading(vault, index, options);
    await reading.enter(listing.newPacks(500), listing.countNew());
    let dropped = 0;
    for (const packs of listing.gonePacks(1000)) {
      index.dropPacks(packs);
      dropped += packs.length;
      await turn();
    }
    await sweep(index, signal);
    index.noteBuilt();
    return { added: reading.added, dropped, damaged: reading.damaged };
  } finally {
    listing.close();
  }
}

class Reading {
  added = 0;
  readonly damaged: DamagedPack[] = [];
  readonly #vault: VaultCore;
  readonly #index: ChunkIndex;
  readonly #parallel: number;
  readonly #signal: AbortSignal | undefined;
  readonly #progress: NonNullable<RefreshOptions['progress']>;

  constructor(vault: VaultCore, index: ChunkIndex, options: RefreshOptions) {
    this.#vault = vault;
    this.#index = index;
    this.#parallel = options.parallel ?? 8;
    this.#signal = options.signal;
    this.#progress = options.progress ?? (() => undefined);
  }

  /** `batches` is read as packs are needed. */
  async enter(batches: Iterable<readonly ListedPack[]>, total: number): Promise<void> {
    const found: PackDirectory[] = [];
    let done = 0;
    await inParallel(flat(batches), this.#parallel, async (pack) => {
      this.#signal?.throwIfAborted();
      const directory = await this.#read(pack);
      if (directory !== undefined) found.push(directory);
      if (found.length >= batchSize) this.#enter(found.splice(0));
      this.#progress(++done, total);
    });
    this.#enter(found);
  }

  #enter(found: readonly PackDirectory[]): void {
    this.#index.addPacks(found);
    this.added += found.length;
  }

  async #read({ id, size }: ListedPack): Promise<PackDirectory | undefined> {
    try {
      return await readDirectory(this.#vault, id, { size, signal: this.#signal });
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      // Deleted since the listing.
      if (error.code === 'VAULT_OBJECT_MISSING') return undefined;
      if (error.code !== 'VAULT_DAMAGED') throw error;
      this.damaged.push({ pack: id, reason: error.message });
      return undefined;
    }
  }
}

function* flat<T>(batches: Iterable<readonly T[]>): Generator<T, undefined> {
  for (const batch of batches) yield* batch;
}
