/**
 * The looks of a prune at the vault: which packs there are, what all points need, and how much of each pack that is. In
 * which order they are taken is up to the prune (docs/formats/vault.md, "Pruning").
 */
import { AgentError } from '../../base/errors.ts';
import { refreshIndex } from '../index/refresh.ts';
import type { Point } from '../points/point.ts';
import { listPoints } from '../points/points.ts';
import type { UnknownMap } from './marking.ts';
import { isDeadMark, listWriterObjects } from './participants.ts';
import type { PruneRun } from './run.ts';
import { type VaultUsage, measureUsage } from './usage.ts';

/** What is lost is looked for again as long as that shows anything new, but no more often. */
const mostRounds = 8;

/** Returns how many packs had come or gone since the last look. */
export async function lookAtPacks({ vault, index, options, done }: PruneRun): Promise<number> {
  const { signal, progress } = options;
  const { added, dropped, damaged } = await refreshIndex(vault, index, {
    signal,
    progress: (read, total) => progress?.('index', read, total),
  });
  for (const { pack, reason } of damaged) done.damaged.set(pack, reason);
  return added + dropped;
}

/**
 * Marks what all points need that are there now. Throws VAULT_DAMAGED where that is not known in full, VAULT_LOCKED
 * where that may be so because this run was taken for dead and another one prunes. Points that came late from dead
 * writers and are not whole are removed.
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
        `read, so nobody knows what they need: ${unreadable.error.message}`,
      {
        hint: 'vault check names them; prune goes on once they are repaired or forgotten',
        cause: unreadable.error,
      },
    );
  }
  let unknown = await marking.mark(points);
  // Another pruner may have moved pages while they were looked for.
  for (let round = 0; unknown.length > 0 && round < mostRounds; round++) {
    if ((await lookAtPacks(run)) === 0) break;
    unknown = await marking.markAgain(unknown);
  }
  if (unknown.length > 0) await withdrawOrRefuse(run, unknown);
  return points;
}

async function withdrawOrRefuse(run: PruneRun, unknown: readonly UnknownMap[]): Promise<void> {
  const { vault, lock, done } = run;
  const { signal, allowDamage } = run.options;
  const writers = await listWriterObjects(vault, { signal });
  const late = new Set(writers.filter(({ end }) => isDeadMark(end)).map(({ id }) => id));
  for (const id of new Set(unknown.map(({ point }) => point.id))) {
    if (!late.has(id)) continue;
    await lock?.ensureHeld({ signal });
    if (lock !== undefined) await vault.store.delete(`points/${id}`, { signal });
    done.withdrawn.push(id);
  }
  const left: UnknownMap[] = [];
  for (const each of unknown)
    if (!late.has(each.point.id) && (await isThere(run, `points/${each.point.id}`))) left.push(each);
  const [first] = left;
  if (first === undefined || allowDamage === true) return;
  await lock?.ensureHeld({ signal });
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
