/** Compares the index with the directories of packs, completely or in a sample. */
import { AgentError } from '../../base/errors.ts';
import type { PackDirectory, PartPlace } from '../packs/format.ts';
import { readDirectory } from '../packs/read-pack.ts';
import type { VaultCore } from '../packs/vault-core.ts';
import type { StoreOptions } from '../store/object-store.ts';
import type { ChunkIndex, IndexedPack } from './chunk-index.ts';
import { isIndexDamage } from './damaged.ts';

/** Returns whether the index has exactly the parts of the directory, in the same places. */
export function agrees(index: ChunkIndex, { id, size, parts }: PackDirectory): boolean {
  const indexed = index.pack(id);
  return (
    indexed?.size === size &&
    indexed.parts === parts.length &&
    parts.every((part) =>
      index.lookup(part.name).some((found) => found.pack === id && isSamePlace(found, part)),
    )
  );
}

export function isSamePlace(a: PartPlace, b: PartPlace): boolean {
  return (
    a.offset === b.offset &&
    a.encodedLength === b.encodedLength &&
    a.plainLength === b.plainLength &&
    a.encoding === b.encoding
  );
}

/**
 * Compares up to `count` random packs of the index with the store. Returns false if the store has different content,
 * or if the index is damaged. Packs that are gone or cannot be opened do not count.
 */
export async function sampleAgrees(
  vault: VaultCore,
  index: ChunkIndex,
  count: number,
  { signal }: StoreOptions = {},
): Promise<boolean> {
  const results = await Promise.all(
    somePacks(index, count).map(async (pack) => {
      if (pack === undefined) return false;
      const { id, size } = pack;
      try {
        return agrees(index, await readDirectory(vault, id, { size, signal }));
      } catch (error) {
        if (isIndexDamage(error)) return false;
        if (error instanceof AgentError && ['VAULT_OBJECT_MISSING', 'VAULT_DAMAGED'].includes(error.code))
          return true;
        throw error;
      }
    }),
  );
  return results.every(Boolean);
}

/** Includes undefined if the index turns out to be damaged. */
function somePacks(index: ChunkIndex, count: number): (IndexedPack | undefined)[] {
  try {
    return index.somePacks(count);
  } catch (error) {
    if (!isIndexDamage(error)) throw error;
    return [undefined];
  }
}
