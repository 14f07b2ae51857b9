/**
 * Space at the target of blocks that are no longer in use (`--trim`). The chain's held map says which blocks the target
 * may hold data of; those of them that are free at the job's instant are trimmed, and become pending before that goes
 * out: nobody knows what a target holds where it was trimmed (docs/formats/chain.md).
 */
import type { ErrorCode } from '../base/error-codes.ts';
import { AgentError } from '../base/errors.ts';
import type { JobOptions } from './job.ts';
import type { JobReporter } from './job-reporter.ts';
import type { JobUnit } from './unit.ts';

/** Before the first block goes out: what is about to be sent counts as held, also where the job is cut. Durable. */
export async function beginHeld(unit: JobUnit): Promise<void> {
  const { chain, pool, image } = unit;
  // A recovery point leaves out by itself what is not in use.
  if (image !== undefined) return;
  unit.held = await chain.readHeld();
  unit.held.or(pool.used);
  await chain.saveHeld(unit.held);
}

/** When all is sent and flushed, and `pool.used` is the map of the job's instant: trims, and records what is held. */
export async function endHeld(
  unit: JobUnit,
  options: Pick<JobOptions, 'trim'>,
  report: JobReporter,
): Promise<void> {
  const { chain, pool, held } = unit;
  if (held === undefined) return;
  if (options.trim) await trimFreed(unit, report);
  held.or(pool.used);
  await chain.saveHeld(held);
}

async function trimFreed(unit: JobUnit, report: JobReporter): Promise<void> {
  const { chain, pool, pair, status } = unit;
  const freed = unit.held!.clone();
  freed.andNot(pool.used);
  if (freed.isEmpty()) return;
  const { trim, writeZeroes } = pool.facts.abilities;
  if (!trim && !writeZeroes) {
    report.warn('NOT_TRIMMED', `${pool.targetName} offers no trim, so it frees no space`, pair.device.path);
    return;
  }
  chain.pending.or(freed);
  await chain.savePending();
  try {
    status.bytes_trimmed = await pool.trim(freed);
  } catch (error) {
    if (!(error instanceof AgentError) || !refusals.has(error.code)) throw error;
    report.warn(
      'NOT_TRIMMED',
      `${pool.targetName} refused to free space: ${error.message}`,
      pair.device.path,
    );
    return;
  }
  unit.held!.andNot(freed);
}

/** How a target says that it will not; a lost connection is none of these. */
const refusals: ReadonlySet<ErrorCode> = new Set([
  'NBD_SERVER_ERROR',
  'TARGET_WRITE_ERROR',
  'TARGET_READ_ONLY',
  'TARGET_FULL',
]);
