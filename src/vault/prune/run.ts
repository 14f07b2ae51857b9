/** What one run of a prune is asked for, and what its steps share. */
import type { ChunkIndex } from '../index/chunk-index.ts';
import type { Vault } from '../vault.ts';
import type { Owner } from '../writing/owner.ts';
import type { PrunerLock } from './lock.ts';
import type { Marking } from './marking.ts';
import type { OwnerState } from './participants.ts';
import type { PruneTally } from './result.ts';

export type PruneStep = 'index' | 'mark' | 'measure' | 'copy' | 'delete';

export interface PruneOptions {
  /** Nothing is changed: not even a lock is taken. */
  readonly dryRun?: boolean | undefined;
  /** Packs of which more than this share is not needed are copied. Default 0.25. */
  readonly maxWaste?: number | undefined;
  /** Prunes although what some points need is not known in full: what they need below lost pages may be deleted. */
  readonly allowDamage?: boolean | undefined;
  /** zstd's level for what is copied. */
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
  /** None for a dry run. */
  readonly lock: PrunerLock | undefined;
  readonly marking: Marking;
  readonly done: PruneTally;
}
