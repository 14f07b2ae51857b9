/**
 * Proves that data is lost before it is reported (docs/formats/vault.md, "The index"). The index is only a cache, and
 * other processes change the vault at the same time. So a walk that misses data proves nothing by itself.
 */
import { AgentError } from '../../base/errors.ts';
import type { VaultCore } from '../packs/vault-core.ts';
import type { ChunkIndex } from './chunk-index.ts';
import { rebuildIndex } from './rebuild.ts';
import { refreshIndex } from './refresh.ts';
import { isIntact } from './rows.ts';

/** Limit of rounds in which only a refresh follows. On a busy store, every refresh may find something new. */
const mostRounds = 4;
/** Limit of all rounds. It is reached only if the index is damaged again and again. */
const allRounds = 2 * mostRounds;

export interface ProvenOptions<T> {
  /** Looks up data in the index. */
  readonly walk: () => Promise<T>;
  /** Returns whether the walk found everything. */
  readonly isWhole: (found: T) => boolean;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Repeats the walk until it finds everything, or until the store proves that data is missing. The proof has three parts.
 * A refresh after the walk found no change, so no prune has moved the data in the meantime. The index was built from all
 * packs since the first walk began. After the walk, the index still had all its rows.
 *
 * Returns the last result. Rejects with the errors of the walk and of `refreshIndex`, and with VAULT_INDEX_DAMAGED if the
 * index was damaged again each time.
 */
export async function provenWalk<T>(
  vault: VaultCore,
  index: ChunkIndex,
  { walk, isWhole, signal }: ProvenOptions<T>,
): Promise<T> {
  const begun = index.clock.now();
  /** The generation of the file that was built since then. */
  let built: number | undefined;
  for (let round = 0; ; round++) {
    // Read before the walk: a file that came later proves nothing about the walk.
    const { generation } = index;
    const found = await walk();
    if (isWhole(found)) return found;
    const { added, dropped } = await refreshIndex(vault, index, { signal });
    if (round < mostRounds && added + dropped > 0) continue;
    const isBuilt = built === generation;
    if (isBuilt && (await isIntact(index, generation, signal))) return found;
    if (round >= allRounds) throw unsteady(index);
    await rebuildIndex(vault, index, isBuilt ? index.clock.now() : begun, { signal });
    built = index.generation;
  }
}

/** The index cannot prove anything. This is not damage of the vault. */
export function unsteady({ path }: ChunkIndex): AgentError {
  return new AgentError(
    'VAULT_INDEX_DAMAGED',
    `${path}: the index was damaged again each time it was rebuilt, so it is not known which data the vault has`,
    { hint: 'check the disk of the state directory, then run the command again' },
  );
}
