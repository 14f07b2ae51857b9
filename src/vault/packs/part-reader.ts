/**
 * Reads chunks and pages by name (docs/formats/vault.md, "Reading"). They are looked up in the index and read from
 * packs in ranges that join neighbours. Then they are opened, and their names are computed again. If one pack fails,
 * other packs are tried, after a refresh of the index if necessary. The cache of read data is limited in bytes.
 *
 * The index is a cache, so it is not proof of damage. A part is damaged only if the pack's own directory says that
 * the part is in that place. It is lost only if it is missing in an index that was rebuilt from the store after this
 * reader was created. Either is reported only if the index then still has all its rows. Otherwise it may lack the place
 * of a good copy.
 *
 * Parts are opened in the calling thread, at about 500 MiB/s. With zlib's thread pool this would take twice the
 * processor time and not be faster (measured on 2 cores). The thread yields after a few parts.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import { AgentError } from '../../base/errors.ts';
import type { ChunkIndex, PartLocation } from '../index/chunk-index.ts';
import { isSamePlace } from '../index/agree.ts';
import { unsteady } from '../index/proven.ts';
import { rebuildIndex } from '../index/rebuild.ts';
import { refreshIndex } from '../index/refresh.ts';
import { isIntact } from '../index/rows.ts';
import { type Name, Namer } from '../names.ts';
import { type PackKind, damaged, packObject, tagLength } from './format.ts';
import { nameText } from './name-text.ts';
import { readDirectory } from './read-pack.ts';
import { type Run, joinRuns } from './runs.ts';
import { PackCipher } from './sealing.ts';
import type { VaultCore } from './vault-core.ts';

export interface PartReaderOptions {
  /** Size of the cache in bytes. Default: 24 MiB. */
  readonly cacheBytes?: number;
  /** Number of ranges that are read in parallel, each at most 2 MiB. Default: 4. */
  readonly parallel?: number;
  readonly signal?: AbortSignal | undefined;
  /** Called for copies that exist but are unusable, even if another copy is used. */
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
  /** Error of a copy that exists but is unusable. */
  readonly damage?: AgentError | undefined;
  /** A pack did not exist. */
  readonly isGone: boolean;
  /** The index disagrees with a pack. */
  readonly isDoubtful: boolean;
}

/** A moment at which the index was found right. It is trusted for a while if no pack was dropped since. */
interface Seen {
  /** By the monotonic clock. */
  readonly until: number;
  readonly state: string;
}

/** Number of parts that are opened before the thread yields: 1 or 2 ms. */
const partsPerTurn = 16;
/** How long a refresh without changes is trusted, in milliseconds. A verification of all rows at least so long. */
const believedMs = 60_000;
/** Limit of searches after which only a refresh follows. On a busy store, every refresh may find something new. */
const mostRounds = 4;
/** Limit of all searches. It is reached only if the index is damaged again and again. */
const allRounds = 2 * mostRounds;

export class PartReader {
  readonly #vault: VaultCore;
  readonly #index: ChunkIndex;
  readonly #parallel: number;
  readonly #signal: AbortSignal | undefined;
  readonly #onDamage: (error: AgentError) => void;
  readonly #cacheBytes: number;
  readonly #cache: LRUCache<string, Buffer>;
  readonly #ciphers = new LRUCache<string, PackCipher>({ max: 256 });
  readonly #namers: Readonly<Record<PackKind, Namer>>;
  readonly #waiting = new Map<string, Promise<Buffer>>();
  #requests: Request[] = [];
  readonly #runs: Run<Request>[] = [];
  #running = 0;
  #refreshing: Promise<boolean> | undefined;
  /** When a refresh last found no change, and when all rows were last verified. */
  #upToDate: Seen | undefined;
  #intact: Seen | undefined;
  #verifying: Promise<boolean> | undefined;
  /** Milliseconds since 1970. An index that was built later is trusted. */
  readonly #begun: number;
  /** The generation of the index that this reader has rebuilt. */
  #built: number | undefined;
  /** Copies that were passed to `onDamage`, by pack and offset. */
  readonly #reported = new Set<string>();

  constructor(vault: VaultCore, index: ChunkIndex, options: PartReaderOptions = {}) {
    this.#vault = vault;
    this.#index = index;
    this.#begun = index.clock.now();
    this.#parallel = options.parallel ?? 4;
    this.#signal = options.signal;
    this.#onDamage = options.onDamage ?? (() => undefined);
    this.#cacheBytes = options.cacheBytes ?? 24 * 1024 * 1024;
    this.#cache = new LRUCache({
      maxSize: this.#cacheBytes,
      sizeCalculation: (plain) => plain.buffer.byteLength,
    });
    this.#namers = {
      chunks: new Namer(vault.secrets.chunkNameKey),
      pages: new Namer(vault.secrets.pageNameKey),
    };
  }

  /**
   * Returns the content of this name, which must not be the all-zero name. The result is read-only. Rejects with
   * VAULT_CHUNK_LOST if no pack has it, and VAULT_DAMAGED if no pack that has it is usable. Also rejects with errors
   * of the store and the index refresh, and the signal's reason. Requests of one turn are read together.
   */
  get(name: Uint8Array): Promise<Buffer> {
    const text = nameText(name);
    const cached = this.#cache.get(text);
    return cached === undefined ? this.#request(name, text) : Promise.resolve(cached);
  }

  getMany(names: readonly Uint8Array[]): Promise<Buffer[]> {
    return Promise.all(names.map((name) => this.get(name)));
  }

  /** Returns the content of this name if it is in the cache. */
  cached(name: Uint8Array): Buffer | undefined {
    return this.#cache.get(nameText(name));
  }

  /** Starts to read names that will be requested soon, at most half of the cache at a time. `get` reports failures. */
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
      throw damaged(pack, `has a part at ${offset} that does not match its name`);
    return plain;
  }

  async #failed(request: Request, error: unknown): Promise<void> {
    if (isUseless(error)) await this.#recover(request);
    else this.#settle(request, { error });
  }

  /** Tries all packs. Refreshes the index as long as a refresh finds something new, and finally rebuilds it. */
  async #recover(request: Request): Promise<void> {
    let damage: AgentError | undefined;
    try {
      for (let round = 0; ; round++) {
        const began = this.#index.clock.now();
        // Read before the search: an index that was built after the search proves nothing about it.
        const { generation } = this.#index;
        const isBuilt = this.#built === generation || this.#index.isBuiltSince(this.#begun);
        const search = await this.#search(request);
        if (search.plain !== undefined) {
          this.#settle(request, { plain: search.plain });
          return;
        }
        damage ??= search.damage;
        if (round === allRounds) throw unsteady(this.#index);
        if (search.isDoubtful) await this.#rebuild(began);
        else if (round < mostRounds && (await this.#refresh(search.isGone))) continue;
        else if (damage === undefined && !isBuilt) await this.#rebuild(this.#begun);
        else if (await this.#isIntact(generation)) break;
        else await this.#rebuild(this.#index.clock.now());
      }
      throw damage ?? lost(this.#vault, request.name);
    } catch (error) {
      this.#settle(request, { error });
    }
  }

  /** Tries once all packs that have the part according to the index. */
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

  /** Returns whether the pack's directory has the part in this place, or cannot be read. */
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

  /** Rebuilds the index unless that was done since then (milliseconds since 1970). */
  async #rebuild(since: number): Promise<void> {
    await rebuildIndex(this.#vault, this.#index, since, { signal: this.#signal });
    this.#built = this.#index.generation;
  }

  /** Returns whether the index of this generation has all its rows. */
  async #isIntact(generation: number): Promise<boolean> {
    if (this.#index.generation === generation && this.#isRecent(this.#intact)) return true;
    const began = this.#index.clock.monotonic();
    this.#verifying ??= isIntact(this.#index, generation, this.#signal).finally(() => {
      this.#verifying = undefined;
    });
    const intact = (await this.#verifying) && this.#index.generation === generation;
    // In a large vault it takes minutes, and must not be repeated for each lost part.
    const took = this.#index.clock.monotonic() - began;
    if (intact) this.#intact = this.#seen(Math.max(believedMs, 10 * took));
    return intact;
  }

  #seen(forMs: number): Seen {
    return { until: this.#index.clock.monotonic() + forMs, state: this.#index.state };
  }

  #isRecent(seen: Seen | undefined): boolean {
    if (seen === undefined) return false;
    return this.#index.clock.monotonic() < seen.until && this.#index.state === seen.state;
  }

  /**
   * Refreshes the index; returns false if nothing was new. A listing during puts and deletes may miss both the old
   * and the new place of a part. So only a listing without news is conclusive.
   */
  async #refresh(isGone: boolean): Promise<boolean> {
    if (!isGone && this.#isRecent(this.#upToDate)) return false;
    this.#refreshing ??= this.#refreshNow().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #refreshNow(): Promise<boolean> {
    const { added, dropped } = await refreshIndex(this.#vault, this.#index, { signal: this.#signal });
    const changed = added + dropped > 0;
    if (!changed) this.#upToDate = this.#seen(believedMs);
    return changed;
  }
}

/** Returns true if this copy is unusable but another one may be usable. */
function isUseless(error: unknown): error is AgentError {
  return error instanceof AgentError && ['VAULT_DAMAGED', 'VAULT_OBJECT_MISSING'].includes(error.code);
}

function lost(vault: VaultCore, name: Name): AgentError {
  return new AgentError(
    'VAULT_CHUNK_LOST',
    `no pack of ${vault.name} holds the chunk or page ${name.toString('hex')}`,
    {
      hint:
        'run dattocli vault check to list the affected points and ranges; a later backup may store ' +
        'it again',
    },
  );
}
