/** The options of a prune, and the state that its steps share. */
import type { ChunkIndex } from '../index/chunk-index.ts';
import type { Vault } from '../vault.ts';
import type { Owner } from '../writing/owner.ts';
import type { PrunerLock } from './lock.ts';
import type { Marking } from './marking.ts';
import type { OwnerState } from './participants.ts';
import type { PruneTally } from './result.ts';

export type PruneStep = 'index' | 'mark' | 'measure' | 'copy' | 'delete';

export interface PruneOptions {
  /** Changes nothing and takes no lock. */
  readonly dryRun?: boolean | undefined;
  /** Packs of which more than this share is unused are copied. Default: 0.25. */
  readonly maxWaste?: number | undefined;
  /** Prunes even if the live data of some points is not fully known. Data below lost pages may be deleted. */
  readonly allowDamage?: boolean | undefined;
  /** zstd level of the copies. */
  readonly level?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: ((step: PruneStep, done: number, total?: number) => void) | undefined;
  /** For tests. */
  readonly owner?: Owner | undefined;
  readonly ownerState?: OwnerState | undefined;
}

export interface PruneRun {
  readonly vault: Vault;
  readonly index: ChunkIndex;
  readonly options: PruneOptions;
  /** Undefined for a dry run. */
  readonly lock: PrunerLock | undefined;
  readonly marking: Marking;
  readonly done: PruneTally;
}
