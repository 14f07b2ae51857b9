/** Carrying condemned lists out: what is needed of their packs is copied, then the packs are deleted. */
import { packObject } from '../packs/format.ts';
import type { CondemnedList } from '../writing/condemned.ts';
import { type Copied, copyNeeded } from './copy.ts';
import type { PruneRun } from './run.ts';

/** A list stays so long, so that a put of one of its packs that comes late finds it still condemned. */
const listMs = 24 * 3600 * 1000;

export interface CarryOutOptions {
  /** Condemned packs with something that is needed and that no other pack has, by a look at the points after the last
   * of the writers had ended for which the lists waited. */
  readonly rescue: ReadonlySet<string>;
  /** All packs that are condemned. */
  readonly condemned: ReadonlySet<string>;
  /** By the store's clock, milliseconds since 1970. */
  readonly now: number;
}

/** Deletes the packs of lists for which nobody is waited any more. */
export async function carryOut(
  run: PruneRun,
  lists: readonly CondemnedList[],
  { rescue, condemned, now }: CarryOutOptions,
): Promise<void> {
  const wanted = lists.flatMap(({ packs }) => packs.filter((pack) => rescue.has(pack)));
  const { damaged } = await copyOut(run, [...new Set(wanted)], condemned);
  const keep = new Set(damaged.map(({ pack }) => pack));
  for (const list of lists) await deleteList(run, list, keep, now);
}

/** Copies what is needed of these packs and not elsewhere; nothing in a dry run. */
export async function copyOut(
  { vault, index, options, lock, marking, done }: PruneRun,
  packs: readonly string[],
  condemned: ReadonlySet<string>,
): Promise<Copied> {
  const { level, signal, progress } = options;
  if (packs.length === 0 || lock === undefined)
    return { packs: 0, parts: 0, bytes: 0, damaged: [], gone: [] };
  const copied = await copyNeeded(vault, index, packs, marking.live, {
    writer: lock.id,
    condemned,
    level,
    signal,
    progress: (read) => progress?.('copy', read, packs.length),
  });
  done.copied.parts += copied.parts;
  done.copied.bytes += copied.bytes;
  for (const { pack, reason } of copied.damaged) done.damaged.set(pack, reason);
  index.dropPacks(copied.gone);
  return copied;
}

async function deleteList(
  { vault, index, options, lock, done }: PruneRun,
  list: CondemnedList,
  keep: ReadonlySet<string>,
  now: number,
): Promise<void> {
  const { signal } = options;
  const { store } = vault;
  // Damaged packs were condemned for being damaged: what can be opened is copied by now.
  const isKept = (pack: string): boolean => list.reason === 'prune' && keep.has(pack);
  const there = new Set(list.packs.filter((pack) => index.pack(pack) !== undefined));
  const gone = [...there].filter((pack) => !isKept(pack));
  for (const pack of gone) done.deleted.bytes += index.pack(pack)?.size ?? 0;
  done.deleted.packs += gone.length;
  if (lock === undefined) return;
  await lock.ensureHeld({ signal });
  let deleted = 0;
  // The index does not know those whose directories are damaged.
  const unknown = list.packs.filter((pack) => done.damaged.has(pack) && !there.has(pack));
  const objects = [...gone, ...unknown];
  await inParallel(objects, 8, async (pack) => {
    signal?.throwIfAborted();
    await store.delete(packObject(pack), { signal });
    done.damaged.delete(pack);
    options.progress?.('delete', ++deleted, objects.length);
  });
  index.dropPacks(gone);
  if (list.packs.some(isKept) || now - list.modified < listMs) return;
  await store.delete(`condemned/${list.id}`, { signal });
  await store.delete(`condemned/${list.id}.waits`, { signal });
}

async function inParallel<T>(
  items: readonly T[],
  count: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const left = items.values();
  const worker = async (): Promise<void> => {
    for (const item of left) await work(item);
  };
  await Promise.all(Array.from({ length: count }, worker));
}
