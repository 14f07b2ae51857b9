/**
 * Collects chunks or pages in packs and puts the packs (docs/formats/vault.md, "Packs"). The caller computes the
 * names. Compressing and sealing run in the calling thread, which may be busy for a while. The next pack is filled
 * while one is being put. If both are full, `add` returns a promise. So memory holds two packs.
 *
 * A pack gets its ID, and with it its key, when it is closed. The ID depends on the content, so a key never seals two
 * different contents. This holds even if a virtual machine was restored from a snapshot and random numbers repeat.
 *
 * A pack enters the index only after its put has returned.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { ZstdCompressor } from '../../linux/zstd.ts';
import { newId } from '../ids.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import {
  type PackDirectory,
  type PackKind,
  DirectoryBuilder,
  damaged,
  encodeTrailer,
  headerLength,
  maximumPlainLength,
  packObject,
  parseDirectory,
  tagLength,
  trailerLength,
} from './format.ts';
import { nameText } from './name-text.ts';
import { PackCipher, defaultLevel, encode } from './sealing.ts';
import type { Secrets } from '../secrets.ts';
import type { VaultCore } from './vault-core.ts';

export interface PackWriterOptions {
  readonly kind: PackKind;
  /** ID of the writer: 32 hexadecimal digits. */
  readonly writer: string;
  /** IDs of packs that count as absent. */
  readonly condemned?: ReadonlySet<string>;
  /** zstd level, from 1 to 19. Default: `defaultLevel`. */
  readonly level?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Returns milliseconds since 1970. Default: the clock of the index. */
  readonly now?: () => number;
}

export interface PackCounts {
  /** Number of stored parts. */
  chunks: number;
  /** Bytes of the stored parts before compression. */
  plainBytes: number;
  /** Bytes of the stored parts in packs, with their tags. */
  storedBytes: number;
  /** Number of parts that were already stored. */
  deduplicated: number;
  /** Number of durable packs. */
  packs: number;
  packBytes: number;
}

/** While a pack is being put, the thread yields to the event loop after this many parts. */
const partsPerTurn = 8;

const noPacks: ReadonlySet<string> = new Set();

export class PackWriter {
  readonly counts: PackCounts = {
    chunks: 0,
    plainBytes: 0,
    storedBytes: 0,
    deduplicated: 0,
    packs: 0,
    packBytes: 0,
  };
  readonly #vault: VaultCore;
  readonly #index: ChunkIndex;
  readonly #kind: PackKind;
  readonly #writer: string;
  readonly #condemned: ReadonlySet<string>;
  readonly #compressor: ZstdCompressor;
  readonly #signal: AbortSignal | undefined;
  readonly #now: () => number;
  #open: OpenPack | undefined;
  /** Full packs in order; the first is being put. At most two, unless a caller does not wait. */
  readonly #full: OpenPack[] = [];
  readonly #spare: PackBuffers[] = [];
  #putting: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;
  #partsSinceTurn = 0;

  constructor(vault: VaultCore, index: ChunkIndex, options: PackWriterOptions) {
    this.#vault = vault;
    this.#index = index;
    this.#kind = options.kind;
    this.#writer = options.writer;
    this.#condemned = options.condemned ?? noPacks;
    this.#compressor = new ZstdCompressor(options.level ?? defaultLevel);
    this.#signal = options.signal;
    this.#now = options.now ?? (() => index.clock.now());
  }

  /**
   * Returns whether a part of this name is in a pack that may be referenced, or in a pack of this writer that is not
   * yet put.
   */
  has(name: Uint8Array): boolean {
    return this.#isOnItsWay(nameText(name)) || this.#index.hasLive(name, this.#condemned);
  }

  #isOnItsWay(name: string): boolean {
    return this.#open?.names.has(name) === true || this.#full.some((pack) => pack.names.has(name));
  }

  /**
   * Stores `plain` (1 byte to 1 MiB) under its name, unless the vault has it. Copies both. If a promise is returned,
   * the caller should wait for it. Throws or rejects with the error of an earlier put (and then always), or with the
   * signal's reason.
   */
  add(name: Uint8Array, plain: Uint8Array): Promise<void> | undefined {
    this.#check();
    const text = nameText(name);
    if (this.#isOnItsWay(text) || this.#index.hasLive(name, this.#condemned)) {
      this.counts.deduplicated++;
      return undefined;
    }
    const open = (this.#open ??= this.#begin());
    const stored = open.add(name, text, plain, this.#compressor);
    this.counts.chunks++;
    this.counts.plainBytes += plain.length;
    this.counts.storedBytes += stored;
    if (open.size >= this.#vault.packSize) return this.#close(open);
    if (this.#full.length === 0 || ++this.#partsSinceTurn < partsPerTurn) return undefined;
    this.#partsSinceTurn = 0;
    return turn();
  }

  /**
   * Closes the open pack. Resolves when all packs so far are durable and in the index. More parts may be added then.
   */
  async seal(): Promise<void> {
    this.#check();
    if (this.#open !== undefined) void this.#close(this.#open);
    await this.settled();
  }

  /** Resolves when no pack is being put. The open pack stays open. */
  async settled(): Promise<void> {
    await this.#putting;
    this.#check();
  }

  #check(): void {
    this.#signal?.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #begin(): OpenPack {
    const buffers = this.#spare.pop() ?? {
      // Memory that is not written to costs nothing.
      bytes: Buffer.allocUnsafeSlow(this.#vault.packSize + maximumPlainLength + tagLength),
      directory: new DirectoryBuilder(),
    };
    return new OpenPack(this.#vault.secrets, this.#kind, buffers);
  }

  #close(pack: OpenPack): Promise<void> | undefined {
    this.#open = undefined;
    this.#full.push(pack);
    const before = this.#putting;
    const isFirst = this.#full.length === 1;
    this.#putting = this.#put(pack, before);
    // The next pack may be filled during this put. After that the caller must wait.
    if (isFirst) return undefined;
    const wait = before.then(() => {
      this.#check();
    });
    // The next call reports the failure again.
    wait.catch(() => undefined);
    return wait;
  }

  /** Never rejects; the next call reports a failure. */
  async #put(pack: OpenPack, before: Promise<void>): Promise<void> {
    await before;
    try {
      this.#check();
      const { data, directory } = pack.finish(this.#writer, this.#now());
      const refreshes = this.#index.refreshes();
      await this.#vault.store.put(packObject(directory.id), data, { signal: this.#signal, isNew: true });
      await this.#enter(directory, refreshes);
      this.counts.packs++;
      this.counts.packBytes += directory.size;
      this.#full.shift();
      // A failed put may still be reading its buffers, so only buffers of successful puts are reused.
      this.#spare.push(pack.release());
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  async #enter(directory: PackDirectory, refreshes: number): Promise<void> {
    let since = refreshes;
    while (!this.#index.addPack(directory, since)) {
      since = this.#index.refreshes();
      const found = await this.#vault.store.head(packObject(directory.id), { signal: this.#signal });
      if (found === undefined)
        throw damaged(
          directory.id,
          'was deleted right after it was stored (was this writer declared stale?)',
        );
    }
  }
}

interface PackBuffers {
  readonly bytes: Buffer;
  readonly directory: DirectoryBuilder;
}

/**
 * A pack that is being filled or put. Its parts are in their final places, with room for their tags, and are sealed
 * at the end.
 */
class OpenPack {
  readonly names = new Set<string>();
  readonly #secrets: Secrets;
  readonly #kind: PackKind;
  readonly #bytes: Buffer;
  readonly #directory: DirectoryBuilder;
  #end = headerLength;

  constructor(secrets: Secrets, kind: PackKind, { bytes, directory }: PackBuffers) {
    this.#secrets = secrets;
    this.#kind = kind;
    this.#bytes = bytes;
    this.#directory = directory;
    directory.clear();
  }

  /** Bytes of the object if it were closed now. */
  get size(): number {
    return this.#end + this.#directory.length + tagLength + trailerLength;
  }

  /** Returns the bytes that the part takes. */
  add(name: Uint8Array, text: string, plain: Uint8Array, compressor: ZstdCompressor): number {
    if (plain.length < 1 || plain.length > maximumPlainLength)
      throw new RangeError(`a part of ${plain.length} bytes; 1 to ${maximumPlainLength} are allowed`);
    const { encoding, data } = encode(compressor, plain);
    this.#bytes.set(data, this.#end);
    this.#directory.add(name, data.length, plain.length, encoding);
    this.names.add(text);
    this.#end += data.length + tagLength;
    return data.length + tagLength;
  }

  finish(writer: string, created: number): { data: Buffer[]; directory: PackDirectory } {
    const start = this.#end;
    const kind = this.#kind;
    const plain = this.#directory.finish(writer, created);
    // The names in the directory represent the content of the pack.
    const id = newId(plain);
    const cipher = new PackCipher(this.#secrets, id, kind);
    cipher.header.copy(this.#bytes);
    const parsed = parseDirectory(id, plain, start);
    for (const { offset, encodedLength } of parsed.parts)
      cipher.sealInto(
        this.#bytes.subarray(offset, offset + encodedLength + tagLength),
        offset,
        this.#bytes.subarray(offset, offset + encodedLength),
        'part',
      );
    const sealed = Buffer.allocUnsafe(plain.length + tagLength);
    cipher.sealInto(sealed, start, plain, 'directory');
    const size = start + sealed.length + trailerLength;
    const trailer = encodeTrailer({ directoryLength: sealed.length, packLength: size });
    return {
      data: [this.#bytes.subarray(0, start), sealed, trailer],
      directory: { id, kind, size, ...parsed },
    };
  }

  release(): PackBuffers {
    return { bytes: this.#bytes, directory: this.#directory };
  }
}
