/**
 * The copying passes of one device before the freeze: find what the target lacks, make that durable in the
 * pending map, send it, and let the map shrink when it is confirmed (invariant 3).
 *
 * What the target lacks is found by the tracker where there is one, and by comparing with fingerprints otherwise.
 */
import { complement } from '../base/extents.ts';
import { wholeUnits } from './copy/segments.ts';
import { inUnit } from '../tracking/chain.ts';
import type { JobEnvironment, JobOptions } from './job.ts';
import { remap, synced } from './mapping.ts';
import type { ProcedureReport } from './procedure.ts';
import { type JobUnit, isLive, missing } from './unit.ts';

/** The reading inside the freeze that passes aim at, in milliseconds. */
const freezeAimMs = 25;

/** Bytes that may differ at the freeze without another comparing pass being worth it. */
const smallDifference = 8 * 1024 * 1024;

/** What has to be durable before the first block goes out. */
export async function beginChain(unit: JobUnit): Promise<void> {
  const { chain, plan, pool } = unit;
  await chain.adopt();
  if (plan.kind === 'full') await chain.reset(pool.facts.size);
  if (plan.kind === 'differential') {
    // Comparing covers what is in use. What is free may have changed unseen, and counts when it is used again.
    for (const { offset, length } of complement(pool.used.extents(), pool.used.size))
      chain.pending.mark(offset, length);
    await chain.savePending();
  }
}

/** The first pass by the kind of backup. */
export async function firstPass(unit: JobUnit, report: ProcedureReport): Promise<void> {
  unit.status.pass = 1;
  if (unit.plan.kind === 'differential') await findByComparing(unit);
  if (unit.plan.kind === 'incremental' && !(await findByTracker(unit, report))) await findByComparing(unit);
  await sendMissing(unit);
}

/** Passes go on while each leaves much less than the one before, until what is left is read within the aim. */
export async function furtherPasses(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  report: ProcedureReport,
  signal: AbortSignal,
): Promise<void> {
  let before = Infinity;
  while (unit.status.pass < options.maxPasses) {
    signal.throwIfAborted();
    // An untracked device that nobody writes to is done.
    if (!isLive(unit) && unit.tracking === undefined) return;
    unit.status.pass++;
    await remap(unit, options, environment, signal);
    const tracked = await findByTracker(unit, report, true);
    const differed = tracked ? 0 : await findByComparing(unit);
    const left = tracked ? readingBytes(unit) : differed;
    unit.status.bytes_unsynced = left;
    if (left === 0) return;
    const enough = tracked ? await fitsAim(unit, left) : false;
    if (enough && isLive(unit)) return;
    await sendMissing(unit);
    if (!tracked && differed <= smallDifference) return;
    if (left > before / 2) {
      if (tracked && isLive(unit))
        report.warn(
          'CANNOT_CONVERGE',
          `${unit.pair.device.path} is written about as fast as ${unit.pool.targetName} takes it (${left} bytes left ` +
            `after pass ${unit.status.pass}), so the freeze may be long`,
          unit.pair.device.path,
        );
      return;
    }
    before = left;
  }
}

/** Sends what is missing and in use; when it returns, that is confirmed and no longer pending. */
export async function sendMissing(unit: JobUnit): Promise<void> {
  const set = missing(unit);
  if (set.isEmpty()) return;
  await unit.pool.copy(set);
  unit.chain.pending.andNot(set);
  await unit.chain.savePending();
}

/**
 * `further`: the map is older than what is taken now, so that where it could not be read anew, what has been
 * written since counts as used.
 *
 * False where tracking has ended, which is said, and from then on the device is compared.
 */
async function findByTracker(unit: JobUnit, report: ProcedureReport, further = false): Promise<boolean> {
  if (unit.tracking === undefined) return false;
  try {
    const { dirty } = await unit.tracking.feed.take();
    if (further && !synced(unit)) unit.pool.used.or(inUnit(dirty, unit.pool.used.unit));
    await unit.tracking.feed.secure();
    return true;
  } catch (error) {
    loseTracking(unit, error, report);
    return false;
  }
}

/** Rethrows what is not the end of an epoch. */
export function loseTracking(unit: JobUnit, error: unknown, report: ProcedureReport): void {
  if (!isEpochEnd(error)) throw error;
  unit.tracking = undefined;
  unit.status.tracker = 'none';
  report.warn(
    'TRACKING_LOST',
    `tracking of ${unit.pair.device.path} ended during the job (${error.message}); it was compared instead`,
    unit.pair.device.path,
  );
}

function isEpochEnd(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && error.code === 'EPOCH_ENDED';
}

/** Marks the units that differ from their fingerprints as pending, durably; how many bytes that is. */
async function findByComparing(unit: JobUnit): Promise<number> {
  const { pool, chain } = unit;
  const found = await pool.compare(pool.used);
  for (const { offset, length } of found.extents()) chain.pending.mark(offset, length);
  await chain.savePending();
  return found.bytes();
}

/** Bytes that the freeze would have to read now. */
export function readingBytes(unit: JobUnit): number {
  let bytes = 0;
  for (const { length } of wholeUnits(missing(unit))) bytes += length;
  return bytes;
}

async function fitsAim(unit: JobUnit, bytes: number): Promise<boolean> {
  return (bytes / (await unit.pool.measureReading())) * 1000 <= freezeAimMs;
}
