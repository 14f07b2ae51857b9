/**
 * Checks that every page and chunk of a device of a recovery point is in an existing pack. Reads the pages of its map. Looks
 * up the chunks in the index, which is first updated from the packs, and reads none of them.
 */
import { ChunkIndex } from '../../vault/index/chunk-index.ts';
import { provenWalk } from '../../vault/index/proven.ts';
import { refreshIndex } from '../../vault/index/refresh.ts';
import { isDataLossError } from '../../vault/data-loss.ts';
import { ImageMap } from '../../vault/maps/image-map.ts';
import { isZeroName, nameLength } from '../../vault/names.ts';
import { PartReader } from '../../vault/packs/part-reader.ts';
import { Secrets } from '../../vault/secrets.ts';
import { openStore } from '../../vault/store/open-store.ts';
import { Vault } from '../../vault/vault.ts';
import type { PointImageSpec } from '../image/point-image.ts';
import type { Lost } from '../target/thread-messages.ts';

export interface Reachability {
  /** Chunks in the map, and how many of them no pack holds. */
  readonly chunks: number;
  readonly missing: number;
  /** The missing ranges; adjacent ones are joined. The walk ends at an unreadable page, and counts the rest as lost. */
  readonly lost: readonly Lost[];
}

/** Throws CANCELLED, and the errors of the store and the index. */
export async function verifyReachable(
  spec: PointImageSpec,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<Reachability> {
  const { signal } = options;
  const store = await openStore(spec.location, spec.settings);
  try {
    const vault = await Vault.open(store, Secrets.fromMessage(spec.secrets), { signal });
    const index = ChunkIndex.open(spec.indexPath, vault.id);
    try {
      await refreshIndex(vault, index, { signal });
      return await provenWalk(vault, index, {
        walk: () => walk(vault, index, spec, signal),
        isWhole: ({ lost }) => lost.length === 0,
        signal,
      });
    } finally {
      index.close();
    }
  } finally {
    await store.close();
  }
}

async function walk(
  vault: Vault,
  index: ChunkIndex,
  { source }: PointImageSpec,
  signal: AbortSignal | undefined,
): Promise<Reachability> {
  const { chunkSize } = vault;
  const { size, levels } = source;
  const root = Buffer.from(source.root, 'hex');
  const map = new ImageMap(new PartReader(vault, index, { signal }), { root, levels, size, chunkSize });
  const lost: { offset: number; length: number; reason: string }[] = [];
  let chunks = 0;
  let missing = 0;
  let walked = 0;
  try {
    for await (const { firstChunk, names } of map.leaves()) {
      signal?.throwIfAborted();
      for (let at = 0; at < names.length; at += nameLength) {
        const name = names.subarray(at, at + nameLength);
        if (isZeroName(name)) continue;
        chunks++;
        if (index.has(name)) continue;
        missing++;
        const offset = (firstChunk + at / nameLength) * chunkSize;
        const length = Math.min(chunkSize, size - offset);
        const last = lost.at(-1);
        if (last !== undefined && last.offset + last.length === offset) last.length += length;
        else lost.push({ offset, length, reason: 'no pack of the vault holds this chunk' });
      }
      walked = (firstChunk + names.length / nameLength) * chunkSize;
    }
  } catch (error) {
    if (!isDataLossError(error)) throw error;
    lost.push({
      offset: walked,
      length: size - walked,
      reason: `a page of the map is lost: ${error.message}`,
    });
  }
  return { chunks, missing, lost };
}
