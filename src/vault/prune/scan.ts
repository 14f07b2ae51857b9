/**
 * The scans of a prune: which packs exist, which data all points reference, and how much of each pack is live. The
 * prune decides their order (docs/formats/vault.md, "Pruning").
 */
import { AgentError } from '../../base/errors.ts';
import { refreshIndex } from '../index/refresh.ts';
import type { Point } from '../points/point.ts';
import { hasPoint, listPoints } from '../points/points.ts';
import type { UnknownMap } from './marking.ts';
import { isStaleMark, listWriterObjects } from './participants.ts';
import type { PruneRun } from './run.ts';
import { type VaultUsage, measureUsage } from './pack-usage.ts';

/** Limit of rounds. Lost pages are looked up again as long as a round finds something new. */
const mostRounds = 8;

/** Returns how many packs have appeared or vanished since the last scan. */
export async function scanPacks({ vault, index, options, done }: PruneRun): Promise<number> {
  const { signal, progress } = options;
  const { added, dropped, damaged } = await refreshIndex(vault, index, {
    signal,
    progress: (read, total) => progress?.('index', read, total),
  });
  for (const { pack, reason } of damaged) done.damaged.set(pack, reason);
  return added + dropped;
}

/**
 * Marks the data of all existing points. Throws VAULT_DAMAGED if it is not fully known. Throws VAULT_LOCKED if this
 * may be because this run was declared stale and another prune runs. Incomplete points that stale writers published
 * late are removed.
 */
export async function markPoints(run: PruneRun): Promise<readonly Point[]> {
  const { vault, marking, options } = run;
  const { points, damaged } = await listPoints(vault, { signal: options.signal });
  for (const unreadable of damaged) {
    if (!(await isThere(run, unreadable.key))) continue;
    await run.lock?.ensureHeld({ signal: options.signal });
    throw new AgentError(
      'VAULT_DAMAGED',
      `${damaged.length} of ${points.length + damaged.length} recovery points of ${vault.name} cannot be ` +
        `read, so it is not known which data they need: ${unreadable.error.message}`,
      {
        hint: 'run dattocli vault check to list them; repair or forget them, then prune again',
        cause: unreadable.error,
      },
    );
  }
  let unknown = await marking.mark(points);
  // Another pruner may have moved pages in the meantime.
  for (let round = 0; unknown.length > 0 && round < mostRounds; round++) {
    if ((await scanPacks(run)) === 0) break;
    unknown = await marking.markAgain(unknown);
  }
  if (unknown.length > 0) await withdrawOrRefuse(run, unknown);
  return points;
}

async function withdrawOrRefuse(run: PruneRun, unknown: readonly UnknownMap[]): Promise<void> {
  const { vault, lock, done } = run;
  const { signal, allowDamage } = run.options;
  const writers = await listWriterObjects(vault, { signal });
  const late = new Set(writers.filter(({ end }) => isStaleMark(end)).map(({ id }) => id));
  // A point that was forgotten during the walk needs no data, and another pruner may have deleted it.
  const left: UnknownMap[] = [];
  for (const each of unknown) if (await hasPoint(vault, each.point, { signal })) left.push(each);
  for (const id of new Set(left.map(({ point }) => point.id))) {
    if (!late.has(id)) continue;
    await lock?.ensureHeld({ signal });
    if (lock !== undefined) await vault.store.delete(`points/${id}`, { signal });
    done.withdrawn.push(id);
  }
  const first = left.find(({ point }) => !late.has(point.id));
  if (first === undefined || allowDamage === true) return;
  await lock?.ensureHeld({ signal });
  throw new AgentError(
    'VAULT_DAMAGED',
    `the data that ${first.device.path} of the recovery point ${first.point.id} needs is not fully known: ${first.reason}`,
    {
      hint:
        'run dattocli vault check, repair or forget the point, then prune again; with --allow-damage, prune may ' +
        'delete data that the damaged parts of the point need',
    },
  );
}

async function isThere({ vault, options }: PruneRun, point: string): Promise<boolean> {
  return (await vault.store.head(point, { signal: options.signal })) !== undefined;
}

export function measure(
  { index, marking, options }: PruneRun,
  condemned: ReadonlySet<string>,
): Promise<VaultUsage> {
  const { signal, progress } = options;
  return measureUsage(index, marking.live, {
    condemned,
    signal,
    progress: (parts) => progress?.('measure', parts),
  });
}
