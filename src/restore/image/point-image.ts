/** A device of a recovery point as an image, and the data with which our threads and processes open it again. */
import type { Extent } from '../../base/extents.ts';
import { type ImageSource, PointImage } from '../../vault/image.ts';
import { ChunkIndex } from '../../vault/index/chunk-index.ts';
import { isZeroName, nameLength } from '../../vault/names.ts';
import { type SecretsMessage, Secrets } from '../../vault/secrets.ts';
import type { StoreLocation } from '../../vault/store/location.ts';
import { type StoreSettings, openStore } from '../../vault/store/open-store.ts';
import { Vault } from '../../vault/vault.ts';
import type { ImageReader } from './image-reader.ts';

/** Contains the secrets of the vault. It goes only to threads and to the input of child processes, never to a file. */
export interface PointImageSpec {
  readonly kind: 'point';
  readonly location: StoreLocation;
  readonly settings: StoreSettings;
  readonly secrets: SecretsMessage;
  readonly indexPath: string;
  readonly source: ImageSource;
}

export interface PointImageOptions {
  readonly cacheBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Throws VAULT_NOT_FOUND, VAULT_TOO_NEW, VAULT_DAMAGED, and the errors of opening the store. */
export async function openPointImage(
  spec: PointImageSpec,
  options: PointImageOptions = {},
): Promise<ImageReader> {
  await using steps = new AsyncDisposableStack();
  const store = await openStore(spec.location, spec.settings);
  steps.defer(() => store.close());
  const vault = await Vault.open(store, Secrets.fromMessage(spec.secrets));
  const index = ChunkIndex.open(spec.indexPath, vault.id);
  steps.defer(() => index.close());
  const image = PointImage.open(vault, index, spec.source, {
    ...(options.cacheBytes === undefined ? {} : { cacheBytes: options.cacheBytes }),
    signal: options.signal,
  });
  const opened = steps.move();
  return new ReadablePoint(image, vault.chunkSize, () => opened.disposeAsync());
}

class ReadablePoint implements ImageReader {
  readonly name: string;
  readonly size: number;
  readonly chunkSize: number;
  readonly close: () => Promise<void>;
  readonly #image: PointImage;

  constructor(image: PointImage, chunkSize: number, close: () => Promise<void>) {
    this.name = image.name;
    this.size = image.size;
    this.chunkSize = chunkSize;
    this.close = close;
    this.#image = image;
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#image.read(offset, length);
  }

  readInto(into: Buffer, offset: number): Promise<void> {
    return this.#image.readInto(into, offset);
  }

  async *extents(from = 0, to = this.size): AsyncGenerator<Extent> {
    const { chunkSize } = this;
    const firstChunk = Math.floor(from / chunkSize);
    const count = Math.ceil(to / chunkSize) - firstChunk;
    let start = 0;
    let end = 0;
    for await (const leaf of this.#image.map.leaves({ firstChunk, count }))
      for (let at = 0; at < leaf.names.length; at += nameLength) {
        if (isZeroName(leaf.names.subarray(at, at + nameLength))) continue;
        const offset = (leaf.firstChunk + at / nameLength) * chunkSize;
        if (offset !== end) {
          if (end > start) yield { offset: start, length: end - start };
          start = Math.max(from, offset);
        }
        end = Math.min(to, this.size, offset + chunkSize);
      }
    if (end > start) yield { offset: start, length: end - start };
  }
}
