/**
 * Pruning: what no point needs is deleted (docs/formats/vault.md, "Pruning", which says why nothing is lost).
 *
 * May run beside any number of writers, beside readers and checks. Cut anywhere, the next run goes on. The order of the
 * looks is what counts: writers before points, condemned lists before packs, and points after every list that is
 * going to be carried out has been seen by all who could build on it.
 */
import { AgentError } from '../../base/errors.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { refreshIndex } from '../index/refresh.ts';
import { newId } from '../ids.ts';
import { packObject } from '../packs/format.ts';
import { PartReader } from '../packs/part-reader.ts';
import { listPoints } from '../points/points.ts';
import type { Point } from '../points/point.ts';
import type { Vault } from '../vault.ts';
import { type CondemnedList, putCondemned, putWaits, readCondemnedLists } from '../writing/condemned.ts';
import type { Owner } from '../writing/owner.ts';
import { type Choice, choosePacks } from './choose.ts';
import { type Copied, copyNeeded } from './copy.ts';
import { PrunerLock } from './lock.ts';
import { Marking, type UnknownMap } from './marking.ts';
import {
  type OwnerState,
  type Participant,
  declareDead,
  isDead,
  isDeadMark,
  listWriterObjects,
  listWriters,
} from './participants.ts';
import { type Tidied, tidy } from './tidy.ts';
import { type VaultUsage, measureUsage } from './usage.ts';

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

export interface PruneResult {
  readonly dryRun: boolean;
  readonly points: number;
  /** Packs that were deleted (or would be), and their bytes. */
  readonly deleted: { readonly packs: number; readonly bytes: number };
  /** What was copied out of packs that go (or would be: `parts` and the bytes that they take). */
  readonly copied: { readonly parts: number; readonly bytes: number };
  /** Packs that are condemned, and are deleted by a prune after the writers have ended. */
  readonly waiting: {
    readonly packs: number;
    readonly bytes: number;
    readonly writers: readonly Participant[];
  };
  /** What stays: packs, their bytes, and how many of those nobody needs. */
  readonly kept: { readonly packs: number; readonly bytes: number; readonly waste: number };
  /** Writers that were declared dead. */
  readonly dead: readonly Participant[];
  /** Points that came late from writers that had been declared dead, and are not whole: removed. */
  readonly withdrawn: readonly string[];
  /** Packs that stay because something that is needed of them cannot be opened. */
  readonly damaged: readonly { readonly pack: string; readonly reason: string }[];
  readonly tidied: Tidied | undefined;
}

const defaultMaxWaste = 0.25;
/** A list stays so long, so that a put of one of its packs that comes late finds it still condemned. */
const listMs = 24 * 3600 * 1000;

/**
 * Throws VAULT_LOCKED, VAULT_DAMAGED (a point cannot be read, or what it needs is not known in full), and what the
 * store throws. `index` is brought up to date.
 */
export async function prune(
  vault: Vault,
  index: ChunkIndex,
  options: PruneOptions = {},
): Promise<PruneResult> {
  if (options.dryRun === true) return new Prune(vault, index, options, undefined).run();
  const { owner, ownerState, signal } = options;
  const lock = await PrunerLock.take(vault, { what: 'prune', owner, ownerState, signal });
  try {
    return await new Prune(vault, index, options, lock).run();
  } finally {
    // Where the store is out of reach the lock stays, and is found stale.
    await lock.release().catch(() => undefined);
  }
}

class Prune {
  readonly #vault: Vault;
  readonly #index: ChunkIndex;
  readonly #options: PruneOptions;
  /** None for a dry run. */
  readonly #lock: PrunerLock | undefined;
  readonly #marking: Marking;
  readonly #deleted = { packs: 0, bytes: 0 };
  readonly #copied = { parts: 0, bytes: 0 };
  readonly #damaged = new Map<string, string>();
  readonly #dead: Participant[] = [];
  readonly #withdrawn: string[] = [];

  constructor(vault: Vault, index: ChunkIndex, options: PruneOptions, lock: PrunerLock | undefined) {
    this.#vault = vault;
    this.#index = index;
    this.#options = options;
    this.#lock = lock;
    const { signal, progress } = options;
    this.#marking = new Marking(new PartReader(vault, index, { signal }), {
      chunkSize: vault.chunkSize,
      path: `${index.path}-live`,
      signal,
      progress: (pages) => progress?.('mark', pages),
    });
  }

  async run(): Promise<PruneResult> {
    try {
      return await this.#run();
    } finally {
      this.#marking.close();
    }
  }

  async #run(): Promise<PruneResult> {
    const { signal, ownerState } = this.#options;
    const now = (await this.#lock?.storeNow({ signal })) ?? Date.now();
    await this.#finishDead(now, ownerState);
    const lists = await this.#listsWithWaits();
    const writers = await listWriters(this.#vault, { signal });
    const active = this.#lock === undefined ? await this.#living(writers, now) : writers;
    const condemned = condemnedBy(lists);
    await this.#refresh();
    const points = await this.#mark();
    const usage = await this.#measure(condemned);

    const ready = lists.filter((list) => isReady(list, active));
    await this.#carryOut(ready, usage.rescue, condemned, now);

    const activeIds = new Set(active.map(({ id }) => id));
    const candidates = usage.packs.filter(({ writer }) => !activeIds.has(writer));
    const choice = choosePacks(candidates, {
      packSize: this.#vault.packSize,
      maxWaste: this.#options.maxWaste ?? defaultMaxWaste,
    });
    const stillWaiting = lists.filter((list) => !ready.includes(list));
    const waiting = await this.#condemn(choice, condemned, stillWaiting, active, now);
    const tidied = this.#lock === undefined ? undefined : await tidy(this.#vault, now, { signal });
    return this.#result(points.length, usage, choice, waiting, tidied);
  }

  /** Puts `.end` for writers that count as dead. */
  async #finishDead(now: number, state: OwnerState | undefined): Promise<void> {
    const { signal } = this.#options;
    for (const writer of await listWriters(this.#vault, { signal })) {
      if (!(await isDead(writer, now, state))) continue;
      this.#dead.push(writer);
      if (this.#lock !== undefined) await declareDead(this.#vault, writer.id, { signal });
    }
  }

  async #living(writers: readonly Participant[], now: number): Promise<Participant[]> {
    const living: Participant[] = [];
    for (const writer of writers)
      if (!(await isDead(writer, now, this.#options.ownerState))) living.push(writer);
    return living;
  }

  /** The lists that are there; where a pruner was cut before it put `.waits`, that is done now. */
  async #listsWithWaits(): Promise<CondemnedList[]> {
    const { signal } = this.#options;
    const lists = await readCondemnedLists(this.#vault, { signal });
    if (lists.every(({ waits }) => waits !== undefined)) return lists;
    const writers = (await listWriters(this.#vault, { signal })).map(({ id }) => id);
    const complete: CondemnedList[] = [];
    for (const list of lists) {
      if (list.waits === undefined && this.#lock !== undefined)
        await putWaits(this.#vault, list.id, writers, { signal });
      complete.push({ ...list, waits: list.waits ?? writers });
    }
    return complete;
  }

  async #refresh(): Promise<void> {
    const { signal, progress } = this.#options;
    const { damaged } = await refreshIndex(this.#vault, this.#index, {
      signal,
      progress: (done, total) => progress?.('index', done, total),
    });
    for (const { pack, reason } of damaged) this.#damaged.set(pack, reason);
  }

  /** Marks all points that are there now. */
  async #mark(): Promise<readonly Point[]> {
    const { signal } = this.#options;
    const { points, damaged } = await listPoints(this.#vault, { signal });
    const [unreadable] = damaged;
    if (unreadable !== undefined)
      throw new AgentError(
        'VAULT_DAMAGED',
        `${damaged.length} of ${points.length + damaged.length} recovery points of ${this.#vault.name} cannot be ` +
          `read, so nobody knows what they need: ${unreadable.error.message}`,
        {
          hint: 'vault check names them; prune goes on once they are repaired or forgotten',
          cause: unreadable.error,
        },
      );
    const unknown = await this.#marking.mark(points);
    if (unknown.length > 0) await this.#withdrawOrRefuse(unknown);
    return points;
  }

  async #withdrawOrRefuse(unknown: readonly UnknownMap[]): Promise<void> {
    const { signal, allowDamage } = this.#options;
    const writers = await listWriterObjects(this.#vault, { signal });
    const late = new Set(writers.filter(({ end }) => isDeadMark(end)).map(({ id }) => id));
    for (const id of new Set(unknown.map(({ point }) => point.id))) {
      if (!late.has(id)) continue;
      await this.#lock?.ensureHeld({ signal });
      if (this.#lock !== undefined) await this.#vault.store.delete(`points/${id}`, { signal });
      this.#withdrawn.push(id);
    }
    const left: UnknownMap[] = [];
    for (const each of unknown)
      if (!late.has(each.point.id) && (await this.#isThere(each.point))) left.push(each);
    const [first] = left;
    if (first === undefined || allowDamage === true) return;
    throw new AgentError(
      'VAULT_DAMAGED',
      `what ${first.device.path} of the recovery point ${first.point.id} needs is not known in full: ${first.reason}`,
      {
        hint:
          'run vault check; prune goes on once the point is repaired or forgotten, or with --allow-damage, which may ' +
          'delete what the damaged parts of it need',
      },
    );
  }

  /** A point that was forgotten while its map was read needs nothing; another pruner may have removed what it rested on. */
  async #isThere({ id }: Point): Promise<boolean> {
    return (await this.#vault.store.head(`points/${id}`, { signal: this.#options.signal })) !== undefined;
  }

  #measure(condemned: ReadonlySet<string>): Promise<VaultUsage> {
    const { signal, progress } = this.#options;
    return measureUsage(this.#index, this.#marking.live, {
      condemned,
      signal,
      progress: (parts) => progress?.('measure', parts),
    });
  }

  /**
   * Deletes the packs of lists for which nobody is waited any more. `rescue`: condemned packs with something that is
   * needed and that no other pack has, by a look at the points after the last of those writers had ended.
   */
  async #carryOut(
    lists: readonly CondemnedList[],
    rescue: ReadonlySet<string>,
    condemned: ReadonlySet<string>,
    now: number,
  ): Promise<void> {
    const wanted = lists.flatMap(({ packs }) => packs.filter((pack) => rescue.has(pack)));
    const { damaged } = await this.#copy([...new Set(wanted)], condemned);
    const keep = new Set(damaged.map(({ pack }) => pack));
    for (const list of lists) await this.#deleteList(list, keep, now);
  }

  async #deleteList(list: CondemnedList, keep: ReadonlySet<string>, now: number): Promise<void> {
    const { signal } = this.#options;
    const { store } = this.#vault;
    // Damaged packs were condemned for being damaged: what can be opened is copied by now.
    const isKept = (pack: string): boolean => list.reason === 'prune' && keep.has(pack);
    const there = new Set(list.packs.filter((pack) => this.#index.pack(pack) !== undefined));
    const gone = [...there].filter((pack) => !isKept(pack));
    for (const pack of gone) this.#deleted.bytes += this.#index.pack(pack)?.size ?? 0;
    this.#deleted.packs += gone.length;
    if (this.#lock === undefined) return;
    await this.#lock.ensureHeld({ signal });
    let done = 0;
    // The index does not know those whose directories are damaged.
    const unknown = list.packs.filter((pack) => this.#damaged.has(pack) && !there.has(pack));
    const objects = [...gone, ...unknown];
    await inParallel(objects, 8, async (pack) => {
      signal?.throwIfAborted();
      await store.delete(packObject(pack), { signal });
      this.#damaged.delete(pack);
      this.#options.progress?.('delete', ++done, objects.length);
    });
    this.#index.dropPacks(gone);
    if (list.packs.some(isKept) || now - list.modified < listMs) return;
    await store.delete(`condemned/${list.id}`, { signal });
    await store.delete(`condemned/${list.id}.waits`, { signal });
  }

  async #copy(packs: readonly string[], condemned: ReadonlySet<string>): Promise<Copied> {
    const { level, signal, progress } = this.#options;
    if (packs.length === 0 || this.#lock === undefined) return { packs: 0, parts: 0, bytes: 0, damaged: [] };
    const copied = await copyNeeded(this.#vault, this.#index, packs, this.#marking.live, {
      writer: this.#lock.id,
      condemned,
      level,
      signal,
      progress: (done) => progress?.('copy', done, packs.length),
    });
    this.#copied.parts += copied.parts;
    this.#copied.bytes += copied.bytes;
    for (const { pack, reason } of copied.damaged) this.#damaged.set(pack, reason);
    return copied;
  }

  /** Copies what is needed, condemns the chosen packs and, where there are no writers, deletes them at once. */
  async #condemn(
    { unused, partial }: Choice,
    condemned: ReadonlySet<string>,
    earlier: readonly CondemnedList[],
    active: readonly Participant[],
    now: number,
  ): Promise<PruneResult['waiting']> {
    const { signal } = this.#options;
    const waits = new Set(earlier.flatMap(({ waits: ids }) => ids ?? []));
    const waiting = {
      packs: earlier.reduce((sum, { packs }) => sum + packs.length, 0),
      bytes: earlier.reduce((sum, { packs }) => sum + this.#bytesOf(packs), 0),
      writers: active.filter(({ id }) => waits.has(id)),
    };
    const chosen = [...unused, ...partial].map(({ id }) => id);
    if (chosen.length === 0) return waiting;
    if (this.#lock === undefined) return this.#plan({ unused, partial }, active, waiting);

    const { damaged } = await this.#copy(
      partial.map(({ id }) => id),
      new Set([...condemned, ...chosen]),
    );
    const keep = new Set(damaged.map(({ pack }) => pack));
    const packs = chosen.filter((pack) => !keep.has(pack));
    await this.#lock.ensureHeld({ signal });
    const id = newId();
    await putCondemned(this.#vault, id, { reason: 'prune', packs }, { signal });
    const writers = await listWriters(this.#vault, { signal });
    await putWaits(
      this.#vault,
      id,
      writers.map((writer) => writer.id),
      { signal },
    );
    const list: CondemnedList = {
      id,
      reason: 'prune',
      packs,
      waits: writers.map((each) => each.id),
      modified: now,
    };
    if (writers.length > 0)
      return {
        packs: waiting.packs + packs.length,
        bytes: waiting.bytes + this.#bytesOf(packs),
        writers: unionById(waiting.writers, writers),
      };
    await this.#carryOutAtOnce(list, condemned, now);
    return waiting;
  }

  /** All looks again, since a writer may have ended between the first ones and the list. */
  async #carryOutAtOnce(list: CondemnedList, before: ReadonlySet<string>, now: number): Promise<void> {
    const { signal } = this.#options;
    const condemned = condemnedBy(await readCondemnedLists(this.#vault, { signal }));
    await this.#refresh();
    const { points } = await listPoints(this.#vault, { signal });
    let rescue: ReadonlySet<string> = new Set();
    const own = new Set(list.packs);
    // Other lists appear only where two prune at once, though they should not.
    const isNew = [...condemned].some((pack) => !before.has(pack) && !own.has(pack));
    if (isNew || !this.#marking.knows(points)) {
      await this.#mark();
      ({ rescue } = await this.#measure(condemned));
    }
    await this.#carryOut([list], rescue, condemned, now);
  }

  #plan(
    { unused, partial }: Choice,
    active: readonly Participant[],
    waiting: PruneResult['waiting'],
  ): PruneResult['waiting'] {
    const chosen = [...unused, ...partial];
    this.#copied.parts += partial.reduce((sum, { liveParts }) => sum + liveParts, 0);
    this.#copied.bytes += partial.reduce((sum, { liveBytes }) => sum + liveBytes, 0);
    const bytes = chosen.reduce((sum, { size }) => sum + size, 0);
    if (active.length > 0)
      return {
        packs: waiting.packs + chosen.length,
        bytes: waiting.bytes + bytes,
        writers: unionById(waiting.writers, active),
      };
    this.#deleted.packs += chosen.length;
    this.#deleted.bytes += bytes;
    return waiting;
  }

  #bytesOf(packs: readonly string[]): number {
    return packs.reduce((sum, pack) => sum + (this.#index.pack(pack)?.size ?? 0), 0);
  }

  #result(
    points: number,
    usage: VaultUsage,
    { unused, partial }: Choice,
    waiting: PruneResult['waiting'],
    tidied: Tidied | undefined,
  ): PruneResult {
    const gone = new Set([...unused, ...partial].map(({ id }) => id).filter((id) => !this.#damaged.has(id)));
    const kept = usage.packs.filter(({ id }) => !gone.has(id));
    return {
      dryRun: this.#lock === undefined,
      points: points - this.#withdrawn.length,
      deleted: this.#deleted,
      copied: this.#copied,
      waiting,
      kept: {
        packs: kept.length,
        bytes: kept.reduce((sum, { size }) => sum + size, 0),
        waste: kept.reduce((sum, { size, liveBytes }) => sum + size - liveBytes, 0),
      },
      dead: this.#dead,
      withdrawn: this.#withdrawn,
      damaged: [...this.#damaged].map(([pack, reason]) => ({ pack, reason })),
      tidied,
    };
  }
}

function condemnedBy(lists: readonly CondemnedList[]): Set<string> {
  return new Set(lists.flatMap(({ packs }) => packs));
}

/** All writers have ended that had begun before the list could be seen. */
function isReady({ waits }: CondemnedList, active: readonly Participant[]): boolean {
  return !active.some(({ id }) => waits?.includes(id) ?? true);
}

function unionById(a: readonly Participant[], b: readonly Participant[]): Participant[] {
  return [...new Map([...a, ...b].map((each) => [each.id, each])).values()];
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
