/** What a prune did, or would do: counted while it runs, and put together at its end. Pure. */
import type { ChunkIndex } from '../index/chunk-index.ts';
import type { CondemnedList } from '../writing/condemned.ts';
import type { Choice } from './choose.ts';
import type { Participant } from './participants.ts';
import type { Tidied } from './tidy.ts';
import type { VaultUsage } from './usage.ts';

export interface PruneResult {
  readonly dryRun: boolean;
  readonly points: number;
  /** Packs that were deleted (or would be), and their bytes. */
  readonly deleted: { readonly packs: number; readonly bytes: number };
  /** What was copied out of packs that go (or would be: `parts` and the bytes that they take). */
  readonly copied: { readonly parts: number; readonly bytes: number };
  /** Packs that are condemned, and are deleted by a prune after the writers have ended. */
  readonly waiting: Waiting;
  /** What stays: packs, their bytes, and how many of those nobody needs. */
  readonly kept: { readonly packs: number; readonly bytes: number; readonly waste: number };
  /** Writers that were declared dead. */
  readonly dead: readonly Participant[];
  /** Points that came late from writers that had been declared dead, and are not whole: removed. */
  readonly withdrawn: readonly string[];
  /** Packs that stay because something that is needed of them cannot be opened. */
  readonly damaged: readonly { readonly pack: string; readonly reason: string }[];
  /** Packs that stay because the store has no room for copies of what is needed of them. */
  readonly noRoom: number;
  readonly tidied: Tidied | undefined;
}

export interface Waiting {
  readonly packs: number;
  readonly bytes: number;
  readonly writers: readonly Participant[];
}

/** Counts while a prune runs. */
export class PruneTally {
  readonly deleted = { packs: 0, bytes: 0 };
  readonly copied = { parts: 0, bytes: 0 };
  /** By pack, why it cannot be used. */
  readonly damaged = new Map<string, string>();
  readonly dead: Participant[] = [];
  /** Ids of points. */
  readonly withdrawn: string[] = [];
  /** Packs that stay because there is no room for copies of what is needed of them. */
  readonly noRoom = new Set<string>();
}

/** Lists that wait for writers that have not ended. */
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

/** With `packs` that wait for `writers`, too. */
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

/** Counts what a run that is no dry one would do with its choice. */
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
