/**
 * The target of the copying threads for a new image. Written data becomes chunks in packs. The names of the chunks
 * are kept in the names file, which all threads of the image share. The image starts as the image of an earlier
 * point, or as zeros. It is not visible before a point references its map.
 *
 * Naming, compressing and sealing run in the calling thread, so use it in copying threads.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { alignUp, isZero } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { CommittingTarget, ImageRoot, SealedBytes } from '../../block/target.ts';
import { ChunkIndex } from '../index/chunk-index.ts';
import { refreshIndex } from '../index/refresh.ts';
import { buildMap } from '../maps/build.ts';
import { ImageMap, namesIn } from '../maps/image-map.ts';
import { Namer, isZeroName, nameLength } from '../names.ts';
import { PackWriter } from '../packs/pack-writer.ts';
import { PartReader } from '../packs/part-reader.ts';
import { type SecretsMessage, Secrets } from '../secrets.ts';
import { type StoreSettings, openStore } from '../store/open-store.ts';
import type { StoreLocation } from '../store/location.ts';
import { Vault } from '../vault.ts';
import { NamesFile, clearedName } from './names-file.ts';

/** Everything that a thread needs to write to an image. It can be cloned to the thread. */
export interface ImageInTheMaking {
  readonly location: StoreLocation;
  readonly settings: StoreSettings;
  readonly secrets: SecretsMessage;
  readonly indexPath: string;
  /** ID of the writer, and the packs that it must not reference. */
  readonly writer: string;
  readonly condemned: readonly string[];
  /** Path of the names file. */
  readonly namesPath: string;
  /** The image of the earlier point. */
  readonly base: ImageRoot | undefined;
  /** zstd level, from 1 to 19. */
  readonly level: number;
}

export class VaultTarget implements CommittingTarget {
  readonly name: string;
  /** The device's size, rounded up to whole chunks. */
  readonly size: number;
  readonly readOnly = false;
  readonly abilities = {
    flush: true,
    writeZeroes: true,
    trim: false,
    read: true,
    multiConnection: true,
    zeroMap: false,
    seals: true,
  } as const;
  readonly minimumBlock: number;
  readonly maximumPayload = Number.MAX_SAFE_INTEGER;
  readonly depth = 2;
  readonly #vault: Vault;
  readonly #index: ChunkIndex;
  readonly #image: ImageInTheMaking;
  readonly #condemned: ReadonlySet<string>;
  readonly #names: NamesFile;
  readonly #namer: Namer;
  readonly #chunks: PackWriter;
  readonly #reader: PartReader;
  #base: ImageMap | undefined;
  readonly #aborting = new AbortController();

  private constructor(vault: Vault, index: ChunkIndex, deviceSize: number, image: ImageInTheMaking) {
    this.#vault = vault;
    this.#index = index;
    this.#image = image;
    this.name = vault.name;
    this.minimumBlock = vault.chunkSize;
    this.size = alignUp(deviceSize, vault.chunkSize);
    this.#condemned = new Set(image.condemned);
    this.#names = NamesFile.open(image.namesPath);
    this.#namer = new Namer(vault.secrets.chunkNameKey);
    this.#chunks = this.#packs('chunks');
    this.#reader = new PartReader(vault, index);
    this.#base =
      image.base === undefined
        ? undefined
        : new ImageMap(this.#reader, {
            root: Buffer.from(image.base.root, 'hex'),
            levels: image.base.levels,
            size: deviceSize,
            chunkSize: vault.chunkSize,
          });
  }

  /** `deviceSize` is in bytes. Throws errors of opening the store, VAULT_TOO_NEW, VAULT_NOT_FOUND. */
  static async open(image: ImageInTheMaking, deviceSize: number): Promise<VaultTarget> {
    await using steps = new AsyncDisposableStack();
    const store = await openStore(image.location, image.settings);
    steps.defer(() => store.close());
    const vault = await Vault.open(store, Secrets.fromMessage(image.secrets));
    const index = ChunkIndex.open(image.indexPath, vault.id);
    steps.defer(() => index.close());
    const target = new VaultTarget(vault, index, deviceSize, image);
    // `close` closes the store and the index.
    steps.move();
    return target;
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    const { chunkSize } = this.#vault;
    const names = Buffer.alloc((data.length / chunkSize) * nameLength);
    const waits: Promise<void>[] = [];
    for (let at = 0, entry = 0; at < data.length; at += chunkSize, entry += nameLength) {
      const chunk = data.subarray(at, at + chunkSize);
      if (isZero(chunk)) {
        clearedName.copy(names, entry);
        continue;
      }
      const name = this.#namer.name(chunk);
      name.copy(names, entry);
      const wait = this.#chunks.add(name, chunk);
      if (wait !== undefined) waits.push(wait);
    }
    await Promise.all(waits);
    this.#names.write(offset / chunkSize, names);
  }

  writeZeroes(offset: number, length: number): Promise<void> {
    const { chunkSize } = this.#vault;
    const most = 32 * 1024;
    const cleared = Buffer.alloc(Math.min(most, length / chunkSize) * nameLength, 0xff);
    for (let chunk = offset / chunkSize, left = length / chunkSize; left > 0;) {
      const count = Math.min(most, left);
      this.#names.write(chunk, cleared.subarray(0, count * nameLength));
      chunk += count;
      left -= count;
    }
    return Promise.resolve();
  }

  trim(): Promise<void> {
    return Promise.resolve();
  }

  /** Waits for the packs that are being written, so that nothing is written to files of this machine afterwards. */
  flush(): Promise<void> {
    return this.#chunks.settled();
  }

  /** Makes the image start as zeros. Call it before the first write. */
  discardBase(): void {
    this.#base = undefined;
  }

  /** The target can be written and sealed again afterwards. */
  async seal(): Promise<SealedBytes> {
    await this.#chunks.seal();
    const { plainBytes, storedBytes } = this.#chunks.counts;
    return { fresh: plainBytes, stored: storedBytes };
  }

  /** Call it only when all connections of the image have sealed, because it reads the chunks from the packs. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const { chunkSize } = this.#vault;
    const first = Math.floor(offset / chunkSize);
    const count = Math.ceil((offset + length) / chunkSize) - first;
    const names = await this.#current(first, count);
    const result = Buffer.alloc(count * chunkSize);
    const wanted = namesIn(names);
    const parts = await this.#reader.getMany(wanted.map(({ name }) => name));
    for (const [i, { entry }] of wanted.entries()) parts[i]!.copy(result, entry * chunkSize);
    return result.subarray(offset - first * chunkSize, offset - first * chunkSize + length);
  }

  /** Zero ranges are not known without reading. */
  // eslint-disable-next-line @typescript-eslint/require-await
  async *zeroExtents(): AsyncGenerator<never> {
    return;
  }

  /**
   * Stores the map pages of the current image. `touched`: all ranges that were written, and ranges of the earlier
   * image to leave out. `used`: the ranges that the image holds.
   */
  async buildMap(touched: Bitmap, used: Bitmap): Promise<ImageRoot> {
    const { chunkSize } = this.#vault;
    const pages = this.#packs('pages');
    const built = await buildMap({
      base: this.#base,
      size: used.size,
      chunkSize,
      touched: touched.extents(),
      changed: async (first, count) => {
        const names = this.#names.read(first, count);
        await this.#expectStored(names, first);
        // Leaves out chunks that are no longer in use.
        for (let i = 0; i < count; i++)
          if (!holdsAny(used, (first + i) * chunkSize, chunkSize)) clearedName.copy(names, i * nameLength);
        return names;
      },
      namer: new Namer(this.#vault.secrets.pageNameKey),
      pages,
    });
    await pages.seal();
    return { root: built.root.toString('hex'), levels: built.levels };
  }

  /** A point must not reference a chunk that no pack holds. */
  async #expectStored(names: Buffer, first: number): Promise<void> {
    const isMissing = (name: Buffer): boolean =>
      !name.equals(clearedName) && !this.#index.hasLive(name, this.#condemned);
    if (!namesIn(names).some(({ name }) => isMissing(name))) return;
    // The index is a cache. It may have been rebuilt in the meantime.
    await refreshIndex(this.#vault, this.#index, { signal: this.#aborting.signal });
    for (const { entry, name } of namesIn(names))
      if (isMissing(name))
        throw new AgentError(
          'INTERNAL',
          `chunk ${first + entry} was written to the image and is in no pack of ${this.name}`,
        );
  }

  async close(): Promise<void> {
    this.destroy();
    await this.#chunks.settled().catch(() => undefined);
    this.#names.close();
    this.#index.close();
    await this.#vault.store.close();
  }

  destroy(): void {
    this.#aborting.abort();
  }

  #packs(kind: 'chunks' | 'pages'): PackWriter {
    const { writer, level } = this.#image;
    return new PackWriter(this.#vault, this.#index, {
      kind,
      writer,
      condemned: this.#condemned,
      level,
      signal: this.#aborting.signal,
    });
  }

  /** Returns the current names of the chunks of the image. */
  async #current(first: number, count: number): Promise<Buffer> {
    const names = this.#names.read(first, count);
    let base: Buffer | undefined;
    for (let at = 0; at < names.length; at += nameLength) {
      const name = names.subarray(at, at + nameLength);
      if (name.equals(clearedName)) name.fill(0);
      else if (isZeroName(name) && this.#base !== undefined)
        (base ??= await this.#base.names(first, count)).copy(names, at, at, at + nameLength);
    }
    return names;
  }
}

/** Returns true if a bit of the range is set. */
function holdsAny(set: Bitmap, offset: number, length: number): boolean {
  const end = Math.min(offset + length, set.size);
  for (let unit = Math.floor(offset / set.unit); unit * set.unit < end; unit++)
    if (set.has(unit)) return true;
  return false;
}
