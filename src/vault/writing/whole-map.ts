/** Whether all that a map names is there, apart from what is condemned. */
import type { ChunkIndex } from '../index/chunk-index.ts';
import { isLoss } from '../loss.ts';
import { ImageMap, namesIn } from '../maps/image-map.ts';
import { PartReader } from '../packs/part-reader.ts';
import type { Vault } from '../vault.ts';
import { AgentError } from '../../base/errors.ts';

/**
 * Reads all pages of the map and looks each name up in the index, which is up to date. False at the first page or
 * chunk that is absent, or that only condemned packs hold.
 */
export async function wholeMap(
  vault: Vault,
  index: ChunkIndex,
  image: { readonly root: string; readonly levels: number; readonly size: number },
  condemned: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<boolean> {
  const reader = new PartReader(vault, index, { signal });
  const isThere = (name: Buffer): boolean => index.hasLive(name, condemned);
  const map = new ImageMap(
    {
      get: (name) =>
        isThere(name)
          ? reader.get(name)
          : Promise.reject(new AgentError('VAULT_CHUNK_LOST', 'a page of the map is condemned or gone')),
      // From a bucket, pages that come one after the other would take hours.
      prefetch: (names) => reader.prefetch(names.filter(isThere)),
    },
    {
      root: Buffer.from(image.root, 'hex'),
      levels: image.levels,
      size: image.size,
      chunkSize: vault.chunkSize,
    },
  );
  try {
    for await (const { names } of map.leaves())
      if (namesIn(names).some(({ name }) => !isThere(name))) return false;
    return true;
  } catch (error) {
    if (isLoss(error)) return false;
    throw error;
  }
}
