/** The chain of a device at the begin of a job and at its end (docs/formats/chain.md, "Order of writing"). */
import { complement } from '../base/extents.ts';
import { beginHeld } from './freed.ts';
import type { JobUnit } from './unit.ts';

/** What has to be durable before the first block goes out. */
export async function beginChain(unit: JobUnit): Promise<void> {
  const { chain, plan, pool, rivals } = unit;
  for (const rival of rivals) await rival.save({ state: 'incomplete', torn: true });
  await chain.adopt();
  if (plan.kind === 'full') {
    await chain.reset(pool.facts.size);
    if (unit.image !== undefined) await pool.forgetBase();
    unit.image?.held.fill(false);
  }
  if (unit.image === undefined) await chain.save({ torn: true });
  if (plan.kind === 'differential') {
    // Comparing covers what is in use. What is free may have changed unseen, and counts when it is used again.
    for (const { offset, length } of complement(pool.used.extents(), pool.used.size))
      chain.pending.mark(offset, length);
    await chain.savePending();
  }
  await beginHeld(unit);
}

/** Only now does the chain hold an image of an instant. What could not be read is tried again by the next backup. */
export async function completeChain(unit: JobUnit, uuid: string): Promise<void> {
  const { chain, recent } = unit;
  chain.besides = undefined;
  for (const { offset, length } of unit.status.read_errors) chain.pending.mark(offset, length);
  // A recovery point leaves out chunks that are not in use: when one is used again, it has to be sent.
  if (unit.image !== undefined)
    for (const { offset, length } of complement(
      unit.pool.granular(unit.pool.used).extents(),
      unit.pool.used.size,
    ))
      chain.pending.mark(offset, length);
  await chain.complete({
    ...(unit.base === undefined ? {} : { base: unit.base }),
    ...(recent.units.length > 0 ? { recent: recent.units } : {}),
    targetSize: unit.pool.facts.size,
    epoch: unit.tracking?.epoch ?? null,
    generations: unit.tracking?.feed.generations ?? [],
    tracker: unit.status.tracker,
    job: uuid,
    completedAt: new Date().toISOString(),
  });
}
