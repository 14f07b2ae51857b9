/**
 * Chunks and pages by their names (docs/formats/vault.md, "Reading"): looked up in the index, read from packs in ranges
 * that join neighbours, opened, and their names computed again. What cannot be had from one pack is tried from others,
 * after the index was brought up to date if need be. What was read stays in a cache that is bounded in bytes.
 *
 * The index is only a cache, so it is not believed where it speaks of damage: a part counts as damaged where the pack's
 * own directory says that it lies in that place, and as lost where it is not found in an index that was built anew from
 * the store since this reader was made.
 *
 * Opening happens in the calling thread, some 500 MiB/s: through zlib's thread pool it would cost twice the processor
 * time, and no more speed (measured on 2 cores). The thread is let go between a few parts.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { LruCache } from '../../base/lru-cache.ts';
import type { ChunkIndex, PartLocation } from '../index/chunk-index.ts';
import { isSamePlace } from '../index/agree.ts';
import { rebuildIndex } from '../index/rebuild.ts';
import { refreshIndex } from '../index/refresh.ts';
import { type Name, Namer } from '../names.ts';
import { type PackKind, damaged, packObject, tagLength } from './format.ts';
import { nameText } from './name-text.ts';
import { readDirectory } from './read-pack.ts';
import { type Run, joinRuns } from './runs.ts';
import { PackCipher } from './sealing.ts';
import type { VaultParts } from './vault-parts.ts';

export interface PartReaderOptions {
  /** What is kept of what was read, bytes. Default 24 MiB. */
  readonly cacheBytes?: number;
  /** Ranges that are read at once, each of 2 MiB at most. Default 4. */
  readonly parallel?: number;
  readonly signal?: AbortSignal | undefined;
  /** Told of copies that could not be used although they were there, even where another one could. */
  readonly onDamage?: (error: AgentError) => void;
}

interface Request {
  readonly name: Name;
  readonly text: string;
  readonly resolve: (plain: Buffer) => void;
  readonly reject: (error: unknown) => void;
}

interface Search {
  readonly plain: Buffer | undefined;
  /** Of a copy that is there and cannot be used. */
  readonly damage?: AgentError | undefined;
  /** A pack was not there. */
  readonly isGone: boolean;
  /** The index says of a pack what the pack does not say. */
  readonly isDoubtful: boolean;
}

/** So many parts are opened before others get their turn: 1 or 2 ms. */
const partsPerTurn = 16;
/** A refresh that found nothing new is believed for so long, milliseconds. */
const believedMs = 60_000;
const mostRounds = 4;

export class PartReader {
  readonly #vault: VaultParts;
  readonly #index: ChunkIndex;
  readonly #parallel: number;
  readonly #signal: AbortSignal | undefined;
  readonly #onDamage: (error: AgentError) => void;
  readonly #cacheBytes: number;
  readonly #cache: LruCache<Buffer>;
  readonly #ciphers = new LruCache<PackCipher>(256, () => 1);
  readonly #namers: Readonly<Record<PackKind, Namer>>;
  readonly #waiting = new Map<string, Promise<Buffer>>();
  #requests: Request[] = [];
  readonly #runs: Run<Request>[] = [];
  #running = 0;
  #refreshing: Promise<boolean> | undefined;
  /** When a refresh last found that nothing had changed, by the monotonic clock. */
  #upToDate = Number.NEGATIVE_INFINITY;
  /** Milliseconds since 1970: an index that was built later is believed. */
  readonly #begun = Date.now();
  /** Copies that `onDamage` was told of, by pack and offset. */
  readonly #reported = new Set<string>();

  constructor(vault: VaultParts, index: ChunkIndex, options: PartReaderOptions = {}) {
    this.#vault = vault;
    this.#index = index;
    this.#parallel = options.parallel ?? 4;
    this.#signal = options.signal;
    this.#onDamage = options.onDamage ?? (() => undefined);
    this.#cacheBytes = options.cacheBytes ?? 24 * 1024 * 1024;
    this.#cache = new LruCache(this.#cacheBytes, (plain) => plain.buffer.byteLength);
    this.#namers = {
      chunks: new Namer(vault.secrets.chunkNameKey),
      pages: new Namer(vault.secrets.pageNameKey),
    };
  }

  /**
   * The bytes of this name (not the all-zero name), not to be written to. Rejects with VAULT_CHUNK_LOST where no pack
   * holds them, VAULT_DAMAGED where none that does can be used, what the store and the refresh of the index reject with,
   * and the signal's reason. Requests of one turn are read together.
   */
  get(name: Uint8Array): Promise<Buffer> {
    const text = nameText(name);
    const cached = this.#cache.get(text);
    return cached === undefined ? this.#request(name, text) : Promise.resolve(cached);
  }

  getMany(names: readonly Uint8Array[]): Promise<Buffer[]> {
    return Promise.all(names.map((name) => this.get(name)));
  }

  /** The bytes of this name if they are in the cache. */
  cached(name: Uint8Array): Buffer | undefined {
    return this.#cache.get(nameText(name));
  }

  /** Begins to read what will be asked for soon; not more than half of the cache at a time. Failures are told to `get`. */
  prefetch(names: readonly Uint8Array[]): void {
    const most = Math.floor(this.#cacheBytes / 2 / this.#vault.chunkSize);
    for (const name of names) {
      if (this.#waiting.size >= most) return;
      const text = nameText(name);
      if (!this.#cache.has(text)) this.#request(name, text).catch(() => undefined);
    }
  }

  #request(name: Uint8Array, text: string): Promise<Buffer> {
    const underWay = this.#waiting.get(text);
    if (underWay !== undefined) return underWay;
    const promise = new Promise<Buffer>((resolve, reject) => {
      if (this.#requests.length === 0) queueMicrotask(() => this.#dispatch());
      this.#requests.push({ name: Buffer.from(name), text, resolve, reject });
    });
    this.#waiting.set(text, promise);
    return promise;
  }

  #settle(request: Request, outcome: { plain: Buffer } | { error: unknown }): void {
    this.#waiting.delete(request.text);
    if ('plain' in outcome) {
      this.#cache.set(request.text, outcome.plain);
      request.resolve(outcome.plain);
    } else request.reject(outcome.error);
  }

  #dispatch(): void {
    const requests = this.#requests;
    this.#requests = [];
    const located: { location: PartLocation; item: Request }[] = [];
    for (const item of requests) {
      try {
        const location = this.#index.lookup(item.name)[0];
        if (location === undefined) void this.#recover(item);
        else located.push({ location, item });
      } catch (error) {
        this.#settle(item, { error });
      }
    }
    this.#runs.push(...joinRuns(located));
    this.#startRuns();
  }

  #startRuns(): void {
    while (this.#running < this.#parallel) {
      const run = this.#runs.shift();
      if (run === undefined) return;
      this.#running++;
      void this.#read(run).finally(() => {
        this.#running--;
        this.#startRuns();
      });
    }
  }

  /** Never rejects. */
  async #read(run: Run<Request>): Promise<void> {
    let bytes;
    try {
      bytes = await this.#range(run.pack, run.offset, run.length);
    } catch (error) {
      for (const { item } of run.parts) void this.#failed(item, error);
      return;
    }
    let sinceTurn = 0;
    for (const { location, item } of run.parts) {
      const at = location.offset - run.offset;
      try {
        const sealed = bytes.subarray(at, at + location.encodedLength + tagLength);
        this.#settle(item, { plain: this.#open(item.name, location, sealed) });
      } catch (error) {
        void this.#failed(item, error);
      }
      if (++sinceTurn % partsPerTurn === 0) await turn();
    }
  }

  async #range(pack: string, offset: number, length: number): Promise<Buffer> {
    this.#signal?.throwIfAborted();
    return this.#vault.store.get(packObject(pack), { offset, length, signal: this.#signal });
  }

  #open(name: Name, location: PartLocation, sealed: Uint8Array): Buffer {
    const { pack, kind, offset } = location;
    let cipher = this.#ciphers.get(pack);
    if (cipher === undefined) {
      cipher = new PackCipher(this.#vault.secrets, pack, kind);
      this.#ciphers.set(pack, cipher);
    }
    const plain = cipher.openPart(location, sealed);
    if (!this.#namers[kind].name(plain).equals(name))
      throw damaged(pack, `has a part at ${offset} that does not carry its name`);
    return plain;
  }

  async #failed(request: Request, error: unknown): Promise<void> {
    if (isUseless(error)) await this.#recover(request);
    else this.#settle(request, { error });
  }

  /** Tries all packs; brings the index up to date as long as that brings anything new, and at last builds it anew. */
  async #recover(request: Request): Promise<void> {
    let damage: AgentError | undefined;
    try {
      for (let round = 0; ; round++) {
        const began = Date.now();
        // Before the search: an index that was built after it says nothing of what was not found.
        const isBuilt = this.#index.isBuiltSince(this.#begun);
        const search = await this.#search(request);
        if (search.plain !== undefined) {
          this.#settle(request, { plain: search.plain });
          return;
        }
        damage ??= search.damage;
        if (round === mostRounds) break;
        if (search.isDoubtful) await this.#rebuild(began);
        else if (await this.#refresh(search.isGone)) continue;
        else if (damage !== undefined || isBuilt) break;
        else await this.#rebuild(this.#begun);
      }
      throw damage ?? lost(this.#vault, request.name);
    } catch (error) {
      this.#settle(request, { error });
    }
  }

  /** One round through all the packs that the index has the part in. */
  async #search(request: Request): Promise<Search> {
    let damage: AgentError | undefined;
    let isGone = false;
    for (const location of this.#index.lookup(request.name)) {
      const { pack, offset, encodedLength } = location;
      try {
        const sealed = await this.#range(pack, offset, encodedLength + tagLength);
        return { plain: this.#open(request.name, location, sealed), isGone, isDoubtful: false };
      } catch (error) {
        if (!isUseless(error)) throw error;
        if (error.code === 'VAULT_OBJECT_MISSING') {
          isGone = true;
          continue;
        }
        if (!(await this.#isConfirmed(request.name, location)))
          return { plain: undefined, isGone, isDoubtful: true };
        damage ??= error;
        if (!this.#reported.has(`${pack} ${offset}`)) this.#onDamage(error);
        this.#reported.add(`${pack} ${offset}`);
      }
    }
    return { plain: undefined, damage, isGone, isDoubtful: false };
  }

  /** Whether the pack itself says that the part lies there, or cannot say anything any more. */
  async #isConfirmed(name: Name, location: PartLocation): Promise<boolean> {
    try {
      const { kind, parts } = await readDirectory(this.#vault, location.pack, { signal: this.#signal });
      return (
        kind === location.kind && parts.some((part) => part.name.equals(name) && isSamePlace(part, location))
      );
    } catch (error) {
      if (isUseless(error)) return true;
      throw error;
    }
  }

  /** Builds the index anew unless that was done since (milliseconds since 1970). */
  #rebuild(since: number): Promise<void> {
    return rebuildIndex(this.#vault, this.#index, since, { signal: this.#signal });
  }

  /**
   * Brings the index up to date; false where nothing was new. A list that is made while others put and delete may show
   * neither where something was nor where it is now, so only a list that brought nothing new settles the matter.
   */
  async #refresh(isGone: boolean): Promise<boolean> {
    if (!isGone && performance.now() - this.#upToDate < believedMs) return false;
    this.#refreshing ??= this.#refreshNow().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #refreshNow(): Promise<boolean> {
    const { added, dropped } = await refreshIndex(this.#vault, this.#index, { signal: this.#signal });
    const changed = added + dropped > 0;
    if (!changed) this.#upToDate = performance.now();
    return changed;
  }
}

/** The copy cannot be used, but another one may. */
function isUseless(error: unknown): error is AgentError {
  return error instanceof AgentError && ['VAULT_DAMAGED', 'VAULT_OBJECT_MISSING'].includes(error.code);
}

function lost(vault: VaultParts, name: Name): AgentError {
  return new AgentError(
    'VAULT_CHUNK_LOST',
    `no pack of ${vault.name} holds the chunk or page ${name.toString('hex')}`,
    { hint: 'vault check names the points and ranges that it concerns; a later backup may bring it back' },
  );
}
