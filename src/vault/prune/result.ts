/** The result of a prune or dry run: counted while it runs, and assembled at its end. Pure. */
import type { ChunkIndex } from '../index/chunk-index.ts';
import type { CondemnedList } from '../writing/condemned.ts';
import type { Choice } from './choose-packs.ts';
import type { Participant } from './participants.ts';
import type { Tidied } from './tidy.ts';
import type { VaultUsage } from './pack-usage.ts';

export interface PruneResult {
  readonly dryRun: boolean;
  readonly points: number;
  /** Packs that were (or would be) deleted, and their bytes. */
  readonly deleted: { readonly packs: number; readonly bytes: number };
  /** Live data that was (or would be) copied out of packs to delete. */
  readonly copied: { readonly parts: number; readonly bytes: number };
  /** Condemned packs, which a later prune deletes when the writers have ended. */
  readonly waiting: Waiting;
  /** Remaining packs, their bytes, and the unused bytes among them. */
  readonly kept: { readonly packs: number; readonly bytes: number; readonly waste: number };
  /** Writers that were declared stale. */
  readonly dead: readonly Participant[];
  /** Points that stale writers published late and that are not whole. They were removed. */
  readonly withdrawn: readonly string[];
  /** Packs that stay because live data in them cannot be read. */
  readonly damaged: readonly { readonly pack: string; readonly reason: string }[];
  /** Number of packs that stay because the store has no room for copies of their live data. */
  readonly noRoom: number;
  readonly tidied: Tidied | undefined;
}

export interface Waiting {
  readonly packs: number;
  readonly bytes: number;
  readonly writers: readonly Participant[];
}

/** Counters of a running prune. */
export class PruneTally {
  readonly deleted = { packs: 0, bytes: 0 };
  readonly copied = { parts: 0, bytes: 0 };
  /** Reason by pack. */
  readonly damaged = new Map<string, string>();
  readonly dead: Participant[] = [];
  /** IDs of points. */
  readonly withdrawn: string[] = [];
  /** Packs that stay because the store has no room for copies of their live data. */
  readonly noRoom = new Set<string>();
}

/** Returns the lists that wait for writers that have not ended. */
export function waitingFor(
  index: ChunkIndex,
  lists: readonly CondemnedList[],
  active: readonly Participant[],
): Waiting {
  const waits = new Set(lists.flatMap(({ waits: ids }) => ids ?? []));
  return {
    packs: lists.reduce((sum, { packs }) => sum + packs.length, 0),
    bytes: lists.reduce((sum, { packs }) => sum + bytesOf(index, packs), 0),
    writers: active.filter(({ id }) => waits.has(id)),
  };
}

/** Adds `packs` that wait for `writers`. */
export function waitingAlso(
  index: ChunkIndex,
  waiting: Waiting,
  packs: readonly string[],
  writers: readonly Participant[],
): Waiting {
  return {
    packs: waiting.packs + packs.length,
    bytes: waiting.bytes + bytesOf(index, packs),
    writers: [...new Map([...waiting.writers, ...writers].map((each) => [each.id, each])).values()],
  };
}

function bytesOf(index: ChunkIndex, packs: readonly string[]): number {
  return packs.reduce((sum, pack) => sum + (index.pack(pack)?.size ?? 0), 0);
}

/** Counts what a real run would do with this choice. */
export function countPlan(
  { copied, deleted }: PruneTally,
  { unused, partial }: Choice,
  deletes: boolean,
): void {
  copied.parts += partial.reduce((sum, { liveParts }) => sum + liveParts, 0);
  copied.bytes += partial.reduce((sum, { liveBytes }) => sum + liveBytes, 0);
  if (!deletes) return;
  const chosen = [...unused, ...partial];
  deleted.packs += chosen.length;
  deleted.bytes += chosen.reduce((sum, { size }) => sum + size, 0);
}

export function resultOf(
  done: PruneTally,
  run: Pick<PruneResult, 'dryRun' | 'points' | 'waiting' | 'tidied'> & {
    readonly usage: VaultUsage;
    readonly choice: Choice;
  },
): PruneResult {
  const { usage, choice, points, ...rest } = run;
  const chosen = [...choice.unused, ...choice.partial].map(({ id }) => id);
  const gone = new Set(chosen.filter((id) => !done.damaged.has(id) && !done.noRoom.has(id)));
  const kept = usage.packs.filter(({ id }) => !gone.has(id));
  return {
    ...rest,
    points: points - done.withdrawn.length,
    deleted: done.deleted,
    copied: done.copied,
    kept: {
      packs: kept.length,
      bytes: kept.reduce((sum, { size }) => sum + size, 0),
      waste: kept.reduce((sum, { size, liveBytes }) => sum + size - liveBytes, 0),
    },
    dead: done.dead,
    withdrawn: done.withdrawn,
    noRoom: done.noRoom.size,
    damaged: [...done.damaged].map(([pack, reason]) => ({ pack, reason })),
  };
}
