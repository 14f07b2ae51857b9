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

export async function lookAtPacks({ vault, index, options, done }: PruneRun): Promise<void> {
  const { signal, progress } = options;
  const { damaged } = await refreshIndex(vault, index, {
    signal,
    progress: (read, total) => progress?.('index', read, total),
  });
  for (const { pack, reason } of damaged) done.damaged.set(pack, reason);
}

/**
 * Marks what all points need that are there now. Throws VAULT_DAMAGED where that is not known in full; points that came
 * late from dead writers are removed instead.
 */
export async function markPoints(run: PruneRun): Promise<readonly Point[]> {
  const { vault, marking, options } = run;
  const { points, damaged } = await listPoints(vault, { signal: options.signal });
  const [unreadable] = damaged;
  if (unreadable !== undefined)
    throw new AgentError(
      'VAULT_DAMAGED',
      `${damaged.length} of ${points.length + damaged.length} recovery points of ${vault.name} cannot be ` +
        `read, so nobody knows what they need: ${unreadable.error.message}`,
      {
        hint: 'vault check names them; prune goes on once they are repaired or forgotten',
        cause: unreadable.error,
      },
    );
  const unknown = await marking.mark(points);
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
    if (!late.has(each.point.id) && (await isThere(run, each.point))) left.push(each);
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
async function isThere({ vault, options }: PruneRun, { id }: Point): Promise<boolean> {
  return (await vault.store.head(`points/${id}`, { signal: options.signal })) !== undefined;
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
