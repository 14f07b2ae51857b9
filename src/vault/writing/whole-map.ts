/** Whether all that a map names is there, apart from what is condemned. */
import type { ChunkIndex } from '../index/chunk-index.ts';
import { isZeroName, nameLength } from '../names.ts';
import { ImageMap } from '../maps/image-map.ts';
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
): Promise<boolean> {
  const root = Buffer.from(image.root, 'hex');
  const reader = new PartReader(vault, index);
  let pagesThere = true;
  const getPage = async (name: Buffer): Promise<Buffer> => {
    pagesThere &&= index.hasLive(name, condemned);
    return reader.get(name);
  };
  const map = new ImageMap(getPage, {
    root,
    levels: image.levels,
    size: image.size,
    chunkSize: vault.chunkSize,
  });
  try {
    for await (const { names } of map.leaves()) {
      if (!pagesThere) return false;
      for (let at = 0; at < names.length; at += nameLength) {
        const name = names.subarray(at, at + nameLength);
        if (!isZeroName(name) && !index.hasLive(name, condemned)) return false;
      }
    }
    return pagesThere;
  } catch (error) {
    if (error instanceof AgentError && ['VAULT_CHUNK_LOST', 'VAULT_DAMAGED'].includes(error.code)) return false;
    throw error;
  }
}
