/**
 * The packs of a vault, looked at one by one: their directories, or all that is in them. What the index says is put right
 * where it disagrees. In memory: the ids of the packs (16 bytes each), and what is wrong.
 */
import { AgentError } from '../../base/errors.ts';
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
  /** Parts that cannot be opened; undefined where not even the directory can be read. */
  readonly parts: number | undefined;
}

export interface PackCheckOptions {
  /** Share of the packs that are read as a whole, from 0 (directories alone) to 1. */
  readonly share: number;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: ((packs: number) => void) | undefined;
}

const directoriesAtOnce = 8;
/** Of up to 64 MiB each. */
const packsAtOnce = 2;

export class PackCheck {
  count = 0;
  bytes = 0;
  /** Of packs that were read as a whole. */
  bytesRead = 0;
  readonly damaged: DamagedPack[] = [];
  readonly #vault: Vault;
  readonly #index: ChunkIndex;
  readonly #options: PackCheckOptions;
  readonly #there = new PageSet();
  /** By pack, the offsets of parts that cannot be opened; undefined: none can be counted on. */
  readonly #bad = new Map<string, ReadonlySet<number> | undefined>();
  /** What the index has of packs that were not there. */
  readonly #gone = new Set<string>();
  readonly #refreshes: number;
  #batch: StoredObject[] = [];

  /** To be made before the packs are listed. */
  constructor(vault: Vault, index: ChunkIndex, options: PackCheckOptions) {
    this.#vault = vault;
    this.#index = index;
    this.#options = options;
    this.#refreshes = index.refreshes();
  }

  /** Told of every pack that a list showed. */
  async add(object: StoredObject): Promise<void> {
    this.#batch.push(object);
    if (this.#batch.length >= 64) await this.#look();
  }

  /** After the list: what is missing of what the index knew. */
  async finish(): Promise<void> {
    await this.#look();
    for (const { id } of this.#index.packs())
      if (!this.#there.has(Buffer.from(id, 'hex'))) this.#gone.add(id);
  }

  /** The index was brought up to date: what it has now is there, and what is gone it has no more. */
  refreshed(): void {
    this.#gone.clear();
  }

  isGone(pack: string): boolean {
    return this.#gone.has(pack);
  }

  /** Whether the copy of a part can be counted on, as far as was looked. */
  isGood({ pack, offset }: Pick<PartLocation, 'pack' | 'offset'>): boolean {
    if (this.#gone.has(pack)) return false;
    if (!this.#bad.has(pack)) return true;
    return this.#bad.get(pack)?.has(offset) === false;
  }

  /** Whether the index alone tells what is there. */
  get isAllGood(): boolean {
    return this.#gone.size === 0 && this.#bad.size === 0;
  }

  async #look(): Promise<void> {
    const { share, signal, progress } = this.#options;
    const left = this.#batch.splice(0).values();
    const work = async (): Promise<void> => {
      for (const { key, size } of left) {
        signal?.throwIfAborted();
        const id = packOfObject(key)!;
        await this.#lookAt(id, size, share > 0 && Math.random() < share);
        progress?.(this.count);
      }
    };
    await Promise.all(Array.from({ length: share > 0 ? packsAtOnce : directoriesAtOnce }, work));
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
      // Deleted since the list.
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

  /** What the pack's own directory says counts. */
  #compare(directory: PackDirectory): void {
    if (agrees(this.#index, directory)) return;
    if (this.#index.pack(directory.id) !== undefined) this.#index.dropPack(directory.id);
    // Where a refresh began meanwhile, that one enters it.
    this.#index.addPack(directory, this.#refreshes);
  }
}
