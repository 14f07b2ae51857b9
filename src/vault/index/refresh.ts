/**
 * Brings the index up to date with the packs that are there (docs/formats/vault.md, "Writing a point", step 3): new
 * packs' directories are read and entered, packs that are gone are dropped. One at a time on this machine, so that
 * nothing is entered that a later refresh has already looked for in vain. In memory: a few directories, whatever
 * the size of the vault.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { type PackDirectory, packOfObject } from '../packs/format.ts';
import { readDirectory } from '../packs/read-pack.ts';
import type { VaultParts } from '../packs/vault-parts.ts';
import type { ChunkIndex } from './chunk-index.ts';
import { Listing, type ListedPack } from './listing.ts';
import { refreshLock } from './lock.ts';
import { sweep } from './sweep.ts';

export interface RefreshOptions {
  readonly signal?: AbortSignal | undefined;
  /** Packs read so far, of those that have to be. */
  readonly progress?: ((done: number, total: number) => void) | undefined;
  /** How many directories are read at once. Default 8. */
  readonly parallel?: number;
}

export interface DamagedPack {
  readonly pack: string;
  readonly reason: string;
}

export interface Refreshed {
  /** Packs. */
  readonly added: number;
  readonly dropped: number;
  /** Packs that are there, but whose directory cannot be read; nothing of them is in the index. */
  readonly damaged: readonly DamagedPack[];
}

/** So many packs are entered in one transaction: some 20 ms in a large index. */
const batchSize = 4;
const mostAttempts = 3;

/** Rejects with FILE_ERROR, VAULT_INDEX_DAMAGED, what the store rejects with, and the signal's reason. */
export async function refreshIndex(
  vault: VaultParts,
  index: ChunkIndex,
  options: RefreshOptions = {},
): Promise<Refreshed> {
  const release = await refreshLock(index.path, options.signal);
  try {
    index.reopenIfReplaced();
    return await refreshLocked(vault, index, options);
  } finally {
    release();
  }
}

/** The same for one who holds the lock. Where the file turns out to be damaged, it is built anew. */
export async function refreshLocked(
  vault: VaultParts,
  index: ChunkIndex,
  options: RefreshOptions = {},
): Promise<Refreshed> {
  for (let attempt = 1; ; attempt++) {
    const { generation } = index;
    try {
      return await refresh(vault, index, options);
    } catch (error) {
      const isDamaged = error instanceof AgentError && error.code === 'VAULT_INDEX_DAMAGED';
      // Others of this thread may have met the damage while this one waited for the store.
      if (attempt === mostAttempts || !(isDamaged || index.generation !== generation)) throw error;
      options.signal?.throwIfAborted();
      index.reopenIfReplaced();
    }
  }
}

async function refresh(vault: VaultParts, index: ChunkIndex, options: RefreshOptions): Promise<Refreshed> {
  const { signal } = options;
  // Before the list: a pack that is entered from here on was looked for by its writer after this.
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

    // New ones first: what a prune moved is never missed in between.
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
  readonly #vault: VaultParts;
  readonly #index: ChunkIndex;
  readonly #parallel: number;
  readonly #signal: AbortSignal | undefined;
  readonly #progress: NonNullable<RefreshOptions['progress']>;

  constructor(vault: VaultParts, index: ChunkIndex, options: RefreshOptions) {
    this.#vault = vault;
    this.#index = index;
    this.#parallel = options.parallel ?? 8;
    this.#signal = options.signal;
    this.#progress = options.progress ?? (() => undefined);
  }

  /** `batches` is read as packs are needed, and not by two at once. */
  async enter(batches: Iterable<readonly ListedPack[]>, total: number): Promise<void> {
    const left = flat(batches);
    const found: PackDirectory[] = [];
    let done = 0;
    const work = async (): Promise<void> => {
      for (const pack of left) {
        this.#signal?.throwIfAborted();
        const directory = await this.#read(pack);
        if (directory !== undefined) found.push(directory);
        if (found.length >= batchSize) this.#enter(found.splice(0));
        this.#progress(++done, total);
      }
    };
    const workers = Array.from({ length: this.#parallel }, work);
    try {
      await Promise.all(workers);
    } finally {
      // Where one failed the others end at their next pack.
      left.return(undefined);
      await Promise.allSettled(workers);
    }
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
      // Deleted since the list.
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
