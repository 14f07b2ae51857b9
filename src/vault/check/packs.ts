/**
 * Checks the packs of a vault one by one: their directories only, or all their parts. The index is corrected if it
 * disagrees. Memory holds the IDs of the packs (16 bytes each) and the problems.
 */
import { AgentError } from '../../base/errors.ts';
import { inParallel } from '../../base/in-parallel.ts';
import { agrees } from '../index/agree.ts';
import type { ChunkIndex, PartLocation } from '../index/chunk-index.ts';
import { type PackDirectory, packObject, packOfObject } from '../packs/format.ts';
import { openPack, readDirectory } from '../packs/read-pack.ts';
import { PageSet } from '../prune/page-set.ts';
import type { StoredObject } from '../store/object-store.ts';
import type { Vault } from '../vault.ts';

export interface DamagedPack {
  readonly pack: string;
  readonly reason: string;
  /** Number of parts that cannot be opened; undefined if the directory cannot be read. */
  readonly parts: number | undefined;
}

export interface PackCheckOptions {
  /** Share of the packs that are read as a whole, from 0 (directories only) to 1. */
  readonly share: number;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: ((packs: number) => void) | undefined;
}

const directoriesAtOnce = 8;
/** Packs have up to 64 MiB each. */
const packsAtOnce = 2;

export class PackCheck {
  count = 0;
  bytes = 0;
  /** Bytes of packs that were read as a whole. */
  bytesRead = 0;
  readonly damaged: DamagedPack[] = [];
  readonly #vault: Vault;
  readonly #index: ChunkIndex;
  readonly #options: PackCheckOptions;
  readonly #there = new PageSet();
  /** By pack, the offsets of parts that cannot be opened; undefined if no part can be trusted. */
  readonly #bad = new Map<string, ReadonlySet<number> | undefined>();
  /** Packs in the index that do not exist. */
  readonly #gone = new Set<string>();
  readonly #refreshes: number;
  #batch: StoredObject[] = [];

  /** Create it before the packs are listed. */
  constructor(vault: Vault, index: ChunkIndex, options: PackCheckOptions) {
    this.#vault = vault;
    this.#index = index;
    this.#options = options;
    this.#refreshes = index.refreshes();
  }

  /** Call it for every pack of a listing. */
  async add(object: StoredObject): Promise<void> {
    this.#batch.push(object);
    if (this.#batch.length >= 64) await this.#look();
  }

  /** Call it after the listing. Finds the missing packs that the index knew. */
  async finish(): Promise<void> {
    await this.#look();
    for (const { id } of this.#index.packs())
      if (!this.#there.has(Buffer.from(id, 'hex'))) this.#gone.add(id);
  }

  /** Call it after the index was updated: it now has only packs that exist. */
  refreshed(): void {
    this.#gone.clear();
  }

  isGone(pack: string): boolean {
    return this.#gone.has(pack);
  }

  /** Returns whether the copy of a part can be trusted, as far as it was checked. */
  isGood({ pack, offset }: Pick<PartLocation, 'pack' | 'offset'>): boolean {
    if (this.#gone.has(pack)) return false;
    if (!this.#bad.has(pack)) return true;
    return this.#bad.get(pack)?.has(offset) === false;
  }

  /** Returns whether the index alone is sufficient to find the parts. */
  get isAllGood(): boolean {
    return this.#gone.size === 0 && this.#bad.size === 0;
  }

  async #look(): Promise<void> {
    const { share, signal, progress } = this.#options;
    const batch = this.#batch.splice(0);
    await inParallel(batch, share > 0 ? packsAtOnce : directoriesAtOnce, async ({ key, size }) => {
      signal?.throwIfAborted();
      const id = packOfObject(key)!;
      await this.#lookAt(id, size, share > 0 && Math.random() < share);
      progress?.(this.count);
    });
  }

  async #lookAt(id: string, size: number, wholly: boolean): Promise<void> {
    const { signal } = this.#options;
    try {
      const directory = wholly
        ? await this.#readWhole(id)
        : await readDirectory(this.#vault, id, { size, signal });
      this.#compare(directory);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      // Deleted since the listing.
      if (error.code === 'VAULT_OBJECT_MISSING') return;
      if (error.code !== 'VAULT_DAMAGED') throw error;
      this.#bad.set(id, undefined);
      this.damaged.push({ pack: id, reason: error.message, parts: undefined });
    }
    this.#there.add(Buffer.from(id, 'hex'));
    this.count++;
    this.bytes += size;
    if (wholly) this.bytesRead += size;
  }

  async #readWhole(id: string): Promise<PackDirectory> {
    const bytes = await this.#vault.store.get(packObject(id), { signal: this.#options.signal });
    const opened = openPack(this.#vault, id, bytes);
    const bad = new Set<number>();
    let reason = '';
    for (const part of opened.parts()) {
      if (!('error' in part)) continue;
      if (!(part.error instanceof AgentError)) throw part.error;
      bad.add(part.part.offset);
      reason ||= part.error.message;
    }
    if (bad.size > 0) {
      this.#bad.set(id, bad);
      this.damaged.push({ pack: id, reason, parts: bad.size });
    }
    return opened.directory;
  }

  /** The pack's own directory is authoritative. */
  #compare(directory: PackDirectory): void {
    if (agrees(this.#index, directory)) return;
    if (this.#index.pack(directory.id) !== undefined) this.#index.dropPack(directory.id);
    // If a refresh began in the meantime, it will add the pack.
    this.#index.addPack(directory, this.#refreshes);
  }
}
