/**
 * Carries condemned lists out. First it deletes packs without live data, which frees room. Then it copies the live
 * data of the others and deletes them too.
 */
import { inParallel } from '../../base/in-parallel.ts';
import { packObject } from '../packs/format.ts';
import type { CondemnedList } from '../writing/condemned.ts';
import { type Copied, copyNeeded } from './copy.ts';
import type { PruneRun } from './run.ts';

/** How long a list is kept, in milliseconds. If a put of one of its packs arrives late, the pack is still condemned. */
const listMs = 24 * 3600 * 1000;

export interface CarryOutOptions {
  /**
   * Condemned packs with live data that no other pack has. The points were scanned after the last writer that the
   * lists wait for had ended.
   */
  readonly rescue: ReadonlySet<string>;
  /** All condemned packs. */
  readonly condemned: ReadonlySet<string>;
  /** By the store's clock, in milliseconds since 1970. */
  readonly now: number;
}

/** Deletes the packs of lists that wait for no writer. */
export async function carryOut(
  run: PruneRun,
  lists: readonly CondemnedList[],
  { rescue, condemned, now }: CarryOutOptions,
): Promise<void> {
  for (const { packs } of lists)
    await deletePacks(
      run,
      packs.filter((pack) => !rescue.has(pack)),
    );
  const wanted = new Set(lists.flatMap(({ packs }) => packs.filter((pack) => rescue.has(pack))));
  const copied = await copyOut(run, [...wanted], condemned);
  const isDamaged = new Set(copied.damaged.map(({ pack }) => pack));
  const isCopied = new Set([...copied.complete, ...copied.gone]);
  for (const list of lists) {
    // Packs that were condemned as damaged: their readable data is already copied.
    const keeps = (pack: string): boolean =>
      wanted.has(pack) &&
      run.lock !== undefined &&
      !isCopied.has(pack) &&
      !(isDamaged.has(pack) && list.reason === 'repair');
    await deletePacks(
      run,
      list.packs.filter((pack) => wanted.has(pack) && !keeps(pack)),
    );
    if (!list.packs.some(keeps)) await deleteList(run, list, now);
  }
}

/** Copies live data of these packs that is in no other pack. A dry run copies nothing. */
export async function copyOut(
  { vault, index, options, lock, marking, done }: PruneRun,
  packs: readonly string[],
  condemned: ReadonlySet<string>,
  oneByOne = false,
): Promise<Copied> {
  const { level, signal, progress } = options;
  if (packs.length === 0 || lock === undefined)
    return { packs: 0, parts: 0, bytes: 0, damaged: [], gone: [], complete: [], isFull: false };
  const copied = await copyNeeded(vault, index, packs, marking.live, {
    writer: lock.id,
    condemned,
    level,
    oneByOne,
    signal,
    progress: (read) => progress?.('copy', read, packs.length),
  });
  done.copied.parts += copied.parts;
  done.copied.bytes += copied.bytes;
  for (const { pack, reason } of copied.damaged) done.damaged.set(pack, reason);
  index.dropPacks(copied.gone);
  return copied;
}

async function deletePacks(
  { vault, index, options, lock, done }: PruneRun,
  packs: readonly string[],
): Promise<void> {
  const { signal } = options;
  const { store } = vault;
  const gone = [...new Set(packs)].filter((pack) => index.pack(pack) !== undefined);
  // The index does not have packs whose directories are damaged.
  const unknown = packs.filter((pack) => done.damaged.has(pack) && !gone.includes(pack));
  const objects = [...gone, ...unknown];
  if (objects.length === 0) return;
  for (const pack of gone) done.deleted.bytes += index.pack(pack)?.size ?? 0;
  done.deleted.packs += gone.length;
  if (lock === undefined) return;
  await lock.ensureHeld({ signal });
  let deleted = 0;
  await inParallel(objects, 8, async (pack) => {
    signal?.throwIfAborted();
    await store.delete(packObject(pack), { signal });
    done.damaged.delete(pack);
    options.progress?.('delete', ++deleted, objects.length);
  });
  index.dropPacks(gone);
}

async function deleteList(
  { vault, options, lock }: PruneRun,
  list: CondemnedList,
  now: number,
): Promise<void> {
  const { signal } = options;
  if (lock === undefined || now - list.modified < listMs) return;
  await lock.ensureHeld({ signal });
  await vault.store.delete(`condemned/${list.id}`, { signal });
  await vault.store.delete(`condemned/${list.id}.waits`, { signal });
}
