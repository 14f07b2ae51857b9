/** Whether the index says of a pack what the pack's own directory says; and a sample of it. */
import { AgentError } from '../../base/errors.ts';
import type { PackDirectory, PartPlace } from '../packs/format.ts';
import { readDirectory } from '../packs/read-pack.ts';
import type { VaultParts } from '../packs/vault-parts.ts';
import type { StoreOptions } from '../store/object-store.ts';
import type { ChunkIndex, IndexedPack } from './chunk-index.ts';
import { isIndexDamage } from './damaged.ts';

/** Whether all that the directory names is in the index, in the same places, and no other number of parts. */
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
 * Compares up to `count` packs of the index, picked at random, with what lies in the store. False where one of them is
 * another one there, or the index turns out to be damaged. Packs that are gone, and those that the store
 * cannot open, say nothing.
 */
export async function sampleAgrees(
  vault: VaultParts,
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

/** With one that is undefined if the index turns out to be damaged. */
function somePacks(index: ChunkIndex, count: number): (IndexedPack | undefined)[] {
  try {
    return index.somePacks(count);
  } catch (error) {
    if (!isIndexDamage(error)) throw error;
    return [undefined];
  }
}
