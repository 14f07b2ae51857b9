/**
 * Checks that all pages and chunks of a map exist outside condemned packs, and copies those that exist only in
 * condemned packs.
 */
import { AgentError } from '../../base/errors.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { isDataLossError } from '../data-loss.ts';
import { ImageMap, type PageSource, namesIn } from '../maps/image-map.ts';
import { PackWriter } from '../packs/pack-writer.ts';
import { PartReader } from '../packs/part-reader.ts';
import type { Vault } from '../vault.ts';

/** The map of an image, and its size in bytes. */
export interface MapOf {
  /** Name of the root page, in hexadecimal. */
  readonly root: string;
  readonly levels: number;
  readonly size: number;
}

/** Number of chunks that are copied at a time. */
const copiesAtOnce = 64;

/**
 * Reads all pages of the map and looks up each name in the index, which must be current. Returns false at the first
 * page or chunk that is absent or that only condemned packs hold.
 */
export async function wholeMap(
  vault: Vault,
  index: ChunkIndex,
  image: MapOf,
  condemned: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<boolean> {
  const reader = new PartReader(vault, index, { signal });
  const isThere = (name: Buffer): boolean => index.hasLive(name, condemned);
  const pages: PageSource = {
    get: (name) => (isThere(name) ? reader.get(name) : Promise.reject(absent())),
    // In a bucket, reading pages one by one would take hours.
    prefetch: (names) => reader.prefetch(names.filter(isThere)),
  };
  return orFalse(async () => {
    for await (const { names } of mapOf(vault, pages, image).leaves())
      if (namesIn(names).some(({ name }) => !isThere(name))) return false;
    return true;
  });
}

export interface KeepOptions {
  /** ID of the writer that builds on the map. */
  readonly writer: string;
  readonly condemned: ReadonlySet<string>;
  /** zstd level, from 1 to 19. */
  readonly level?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Like `wholeMap`, for a writer that will build on the map. Pages and chunks that only condemned packs hold are
 * stored again while they still exist. So a waiting prune that condemned packs of a whole point costs these copies
 * and not a full backup. If this resolves to true, all data of the map is in packs that are not condemned.
 */
export async function keepMap(
  vault: Vault,
  index: ChunkIndex,
  image: MapOf,
  { condemned, writer, level, signal }: KeepOptions,
): Promise<boolean> {
  const reader = new PartReader(vault, index, { signal });
  const packs = (kind: 'pages' | 'chunks'): PackWriter =>
    new PackWriter(vault, index, { kind, writer, condemned, level, signal });
  const [pages, chunks] = [packs('pages'), packs('chunks')];
  const isThere = (name: Buffer): boolean => index.has(name);
  const source: PageSource = {
    get: async (name) => {
      if (!isThere(name)) throw absent();
      const plain = await reader.get(name);
      if (!pages.has(name)) await pages.add(name, plain);
      return plain;
    },
    prefetch: (names) => reader.prefetch(names.filter(isThere)),
  };
  return orFalse(async () => {
    for await (const { names } of mapOf(vault, source, image).leaves()) {
      const condemnedOnly = namesIn(names).filter(({ name }) => !chunks.has(name));
      if (condemnedOnly.some(({ name }) => !isThere(name))) return false;
      for (let at = 0; at < condemnedOnly.length; at += copiesAtOnce) {
        const some = condemnedOnly.slice(at, at + copiesAtOnce);
        const plain = await reader.getMany(some.map(({ name }) => name));
        for (const [i, { name }] of some.entries()) await chunks.add(name, plain[i]!);
      }
    }
    await pages.seal();
    await chunks.seal();
    return true;
  });
}

function mapOf({ chunkSize }: Vault, pages: PageSource, { root, levels, size }: MapOf): ImageMap {
  return new ImageMap(pages, { root: Buffer.from(root, 'hex'), levels, size, chunkSize });
}

function absent(): AgentError {
  return new AgentError('VAULT_CHUNK_LOST', 'a page of the map is condemned or gone');
}

async function orFalse(work: () => Promise<boolean>): Promise<boolean> {
  try {
    return await work();
  } catch (error) {
    if (isDataLossError(error)) return false;
    throw error;
  }
}
