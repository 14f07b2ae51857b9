/**
 * Pruning: deletes data that no point references (docs/formats/vault.md, "Pruning", which explains why no live data
 * is lost).
 *
 * It may run beside any number of writers, readers and checks. If interrupted, the next prune continues. Safety
 * depends on the order of the scans. Writers are scanned before points, and condemned lists before packs. Points are
 * scanned after all writers have seen each list that will be carried out.
 */
import { AgentError } from '../../base/errors.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { againIfDamaged } from '../index/damaged.ts';
import { newId } from '../ids.ts';
import { PartReader } from '../packs/part-reader.ts';
import { listPoints } from '../points/points.ts';
import type { Vault } from '../vault.ts';
import {
  type CondemnedList,
  putCondemned,
  putWaits,
  readCondemned,
  readCondemnedLists,
} from '../writing/condemned.ts';
import { carryOut, copyOut } from './delete-packs.ts';
import { type Choice, choosePacks } from './choose-packs.ts';
import { type PrunerLock, withPrunerLock } from './lock.ts';
import { scanPacks, markPoints, measure } from './scan.ts';
import { Marking } from './marking.ts';
import {
  type Participant,
  declareStale,
  isStale,
  isFromFuture,
  listWriters,
  redate,
} from './participants.ts';
import {
  type PruneResult,
  PruneTally,
  type Waiting,
  countPlan,
  resultOf,
  waitingAlso,
  waitingFor,
} from './result.ts';
import type { PruneOptions, PruneRun } from './run.ts';
import { keepRoom } from './room.ts';
import { tidy } from './tidy.ts';

export type { PruneOptions, PruneStep } from './run.ts';
export type { PruneResult } from './result.ts';

const defaultMaxWaste = 0.25;
/** A list with this many packs fits into one block of any filesystem. */
const fewPacks = 64;

/**
 * Updates `index`. Throws VAULT_LOCKED and errors of the store. Throws VAULT_DENIED before any change if these
 * credentials may not delete. Throws VAULT_DAMAGED if a point cannot be read, or if its live data is not fully known.
 */
export async function prune(
  vault: Vault,
  index: ChunkIndex,
  options: PruneOptions = {},
): Promise<PruneResult> {
  if (options.dryRun === true) return pruneWith(vault, index, options, undefined);
  const { owner, ownerState, signal } = options;
  const run = (): Promise<PruneResult> =>
    withPrunerLock(vault, { what: 'prune', owner, ownerState, signal }, (lock) =>
      pruneWith(vault, index, options, lock),
    );
  try {
    return await run();
  } catch (error) {
    // A full disk also has no room for a lock or a list. The reserved room is for them.
    if (!isFullStore(error) || !(await vault.store.room?.release())) throw error;
    return await run();
  } finally {
    await keepRoom(vault);
  }
}

/** If the index turns out to be damaged, it is rebuilt and all scans are repeated. */
function pruneWith(
  vault: Vault,
  index: ChunkIndex,
  options: PruneOptions,
  lock: PrunerLock | undefined,
): Promise<PruneResult> {
  return againIfDamaged(index, () => pruneOnce(vault, index, options, lock));
}

async function pruneOnce(
  vault: Vault,
  index: ChunkIndex,
  options: PruneOptions,
  lock: PrunerLock | undefined,
): Promise<PruneResult> {
  const { signal, progress } = options;
  const marking = new Marking(new PartReader(vault, index, { signal }), {
    chunkSize: vault.chunkSize,
    path: `${index.path}-live`,
    signal,
    progress: (pages) => progress?.('mark', pages),
  });
  try {
    return await runPrune({ vault, index, options, lock, marking, done: new PruneTally() });
  } finally {
    marking.close();
  }
}

async function runPrune(run: PruneRun): Promise<PruneResult> {
  const { vault, index, options, lock, done } = run;
  const { signal } = options;
  const now = (await lock?.storeNow({ signal })) ?? index.clock.now();
  await finishStale(run, now);
  const lists = await listsWithWaits(run);
  const writers = await listWriters(vault, { signal });
  const active = lock === undefined ? await living(run, writers, now) : writers;
  const condemned = condemnedBy(lists);
  await scanPacks(run);
  const points = await markPoints(run);
  const usage = await measure(run, condemned);

  const ready = lists.filter((list) => isReady(list, active));
  await carryOut(run, ready, { rescue: usage.rescue, condemned, now });

  const activeIds = new Set(active.map(({ id }) => id));
  const candidates = usage.packs.filter(({ writer }) => !activeIds.has(writer));
  const choice = choosePacks(candidates, {
    packSize: vault.packSize,
    maxWaste: options.maxWaste ?? defaultMaxWaste,
  });
  const stillWaiting = lists.filter((list) => !ready.includes(list));
  const waiting = await condemn(run, choice, { condemned, earlier: stillWaiting, active, now });
  const tidied = lock === undefined ? undefined : await tidy(vault, now, { signal });
  return resultOf(done, {
    ...{ dryRun: lock === undefined, points: points.length, waiting, tidied },
    ...{ usage, choice },
  });
}

/** Puts `.end` for stale writers. */
async function finishStale({ vault, options, lock, done }: PruneRun, now: number): Promise<void> {
  const { signal, ownerState } = options;
  for (const writer of await listWriters(vault, { signal })) {
    if (!(await isStale(writer, now, ownerState))) {
      if (lock !== undefined && isFromFuture(writer, now))
        await redate(vault, 'writers', writer.id, { signal });
      continue;
    }
    done.dead.push(writer);
    if (lock !== undefined) await declareStale(vault, writer.id, { signal });
  }
}

async function living(
  { options }: PruneRun,
  writers: readonly Participant[],
  now: number,
): Promise<Participant[]> {
  const found: Participant[] = [];
  for (const writer of writers) if (!(await isStale(writer, now, options.ownerState))) found.push(writer);
  return found;
}

/** Returns the existing lists. If a pruner was interrupted before it put `.waits`, it is put now. */
async function listsWithWaits({ vault, options, lock }: PruneRun): Promise<CondemnedList[]> {
  const { signal } = options;
  const lists = await readCondemnedLists(vault, { signal });
  if (lists.every(({ waits }) => waits !== undefined)) return lists;
  const writers = (await listWriters(vault, { signal })).map(({ id }) => id);
  const complete: CondemnedList[] = [];
  for (const list of lists) {
    if (list.waits === undefined && lock !== undefined) await putWaits(vault, list.id, writers, { signal });
    complete.push({ ...list, waits: list.waits ?? writers });
  }
  return complete;
}

interface Before {
  /** Packs that the existing lists condemned. */
  readonly condemned: ReadonlySet<string>;
  /** Existing lists that still wait. */
  readonly earlier: readonly CondemnedList[];
  /** Writers that have not ended. */
  readonly active: readonly Participant[];
  readonly now: number;
}

/**
 * Condemns the chosen packs and, if there are no writers, deletes them at once. Unused packs are first, because
 * deleting them makes room. Then the others follow, as far as there is room for their live data.
 */
async function condemn(run: PruneRun, choice: Choice, before: Before): Promise<Waiting> {
  const { index, lock, done } = run;
  const { condemned, earlier, active } = before;
  const { unused, partial } = choice;
  let waiting = waitingFor(index, earlier, active);
  const chosen = [...unused, ...partial].map(({ id }) => id);
  if (chosen.length === 0) return waiting;
  if (lock === undefined) {
    countPlan(done, choice, active.length === 0);
    return active.length === 0 ? waiting : waitingAlso(index, waiting, chosen, active);
  }

  const condemnedNow = new Set(condemned);
  const remove = async (packs: readonly string[], isMissing = false): Promise<void> => {
    for (let left = packs; left.length > 0;) {
      const step = await condemnSome(run, left, { ...before, condemned: condemnedNow, isMissing });
      for (const pack of step.packs) condemnedNow.add(pack);
      if (step.writers.length > 0) waiting = waitingAlso(index, waiting, step.packs, step.writers);
      left = left.slice(step.packs.length);
    }
  };
  await remove(unused.map(({ id }) => id));

  const all = new Set([...condemned, ...chosen]);
  let left = [...partial].sort((a, b) => a.liveBytes - b.liveBytes).map(({ id }) => id);
  let isReleased = false;
  for (let oneByOne = false; left.length > 0;) {
    const { damaged, gone, complete, isFull } = await copyOut(run, left, all, oneByOne);
    // Another pruner is running and may have removed the lock.
    if (gone.length > 0) await lock.ensureHeld({ signal: run.options.signal });
    await remove(complete, gone.length > 0);
    if (!isFull) break;
    const isDone = new Set([...complete, ...gone, ...damaged.map(({ pack }) => pack)]);
    left = left.filter((pack) => !isDone.has(pack));
    // The reserved room is also for the copies of one pack.
    if (waiting.packs === 0 && oneByOne && complete.length === 0 && !isReleased) {
      isReleased = true;
      if ((await run.vault.store.room?.release()) === true) continue;
    }
    // Packs that wait for writers free no room.
    if (waiting.packs > 0 || (oneByOne && complete.length === 0)) {
      for (const pack of left) done.noRoom.add(pack);
      break;
    }
    oneByOne = true;
  }
  return waiting;
}

/**
 * Puts a condemned list and carries it out if no writer has started. If there is no room for a long list, it puts a
 * shorter one.
 */
async function condemnSome(
  run: PruneRun,
  wanted: readonly string[],
  before: Before & { readonly isMissing: boolean },
): Promise<{ readonly packs: readonly string[]; readonly writers: readonly Participant[] }> {
  const { vault, lock } = run;
  const { signal } = run.options;
  const { condemned, isMissing, now } = before;
  await lock!.ensureHeld({ signal });
  const { id, packs } = await putSome(run, wanted);
  const writers = await listWriters(vault, { signal });
  const waits = writers.map((writer) => writer.id);
  await putWaits(vault, id, waits, { signal }).catch((error: unknown) => {
    // A list without `.waits` is like one after an interruption: the next prune lists the writers again.
    if (!isFullStore(error)) throw error;
  });
  if (writers.length > 0) return { packs, writers };
  const list: CondemnedList = { id, reason: 'prune', packs, waits, modified: now };
  await carryOutAtOnce(run, list, { condemned, isMissing, now });
  return { packs, writers };
}

async function putSome(
  { vault, options }: PruneRun,
  wanted: readonly string[],
): Promise<{ readonly id: string; readonly packs: readonly string[] }> {
  for (const packs of [wanted, wanted.slice(0, fewPacks)]) {
    const id = newId();
    try {
      await putCondemned(vault, id, { reason: 'prune', packs }, { signal: options.signal });
      return { id, packs };
    } catch (error) {
      if (!isFullStore(error) || packs.length <= fewPacks) throw error;
    }
  }
  throw new RangeError('no packs to condemn');
}

function isFullStore(error: unknown): error is AgentError {
  return error instanceof AgentError && error.code === 'VAULT_FULL';
}

/**
 * Repeats all scans, because a writer may have ended between the first scans and the list. `isMissing`: a pack to
 * copy from was gone, so another pack that was unused may be needed now.
 */
async function carryOutAtOnce(
  run: PruneRun,
  list: CondemnedList,
  { condemned: before, isMissing, now }: Pick<Before, 'condemned' | 'now'> & { readonly isMissing: boolean },
): Promise<void> {
  const { vault, marking, options } = run;
  const { signal } = options;
  const condemned = await readCondemned(vault, { signal });
  const others = await scanPacks(run);
  const { points, damaged } = await listPoints(vault, { signal });
  let rescue: ReadonlySet<string> = new Set();
  const own = new Set(list.packs);
  // Other lists appear only if two prunes run at once, which the lock should prevent.
  const isNew = [...condemned].some((pack) => !before.has(pack) && !own.has(pack));
  const isOther = isMissing || others > 0 || damaged.length > 0;
  if (isNew || isOther || !marking.knows(points)) {
    await markPoints(run);
    ({ rescue } = await measure(run, condemned));
  }
  await carryOut(run, [list], { rescue, condemned, now });
}

function condemnedBy(lists: readonly CondemnedList[]): Set<string> {
  return new Set(lists.flatMap(({ packs }) => packs));
}

/** Returns true if all writers have ended that had started before the list was visible. */
function isReady({ waits }: CondemnedList, active: readonly Participant[]): boolean {
  return !active.some(({ id }) => waits?.includes(id) ?? true);
}
