/**
 * The copying passes of one device before the freeze: find what the target lacks (finding.ts), send it, and let the
 * pending map shrink when it is confirmed (invariant 3).
 */
import { formatBytes } from '../base/bytes.ts';
import { findByComparing, findByReadingTarget, findByTracker, readingBytes } from './finding.ts';
import type { JobEnvironment, JobOptions } from './job.ts';
import { remap, syncMounts } from './mapping.ts';
import type { ProcedureReport } from './procedure.ts';
import { type JobUnit, isLive, missing } from './unit.ts';
import { unproven } from './unproven.ts';

/** The reading inside the freeze that passes aim at, in milliseconds. */
const freezeAimMs = 25;

/** Rounds right before the freeze, and bytes to read that are not worth one. */
const lastRounds = 3;
const littleLeft = 1024 * 1024;

/** Of what the pass before had: with more than that left, another pass helps little. */
const stillShrinking = 0.9;

/** Bytes; a first pass that sent less says nothing of how fast the device is written. */
const littleToTell = 32 * 1024 * 1024;

/** Bytes that may differ at the freeze without another comparing pass being worth it. */
const smallDifference = 8 * 1024 * 1024;

/** The first pass by the kind of backup. */
export async function firstPass(unit: JobUnit, report: ProcedureReport): Promise<void> {
  unit.status.pass = 1;
  // What was written until now is read by this pass, and need not be read again by the next one.
  if (unit.plan.kind === 'full') await findByTracker(unit, report, true);
  if (unit.plan.readTarget === true) await findByReadingTarget(unit);
  if (unit.plan.kind === 'differential') await findByComparing(unit);
  if (unit.plan.kind === 'incremental' && !(await findByTracker(unit, report))) await findByComparing(unit);
  await sendMissing(unit);
}

/**
 * Passes go on while each leaves less than the one before, until what is left is read within the aim. That a device is
 * written nearly as fast as the target takes it is said as soon as it shows; nothing is slowed down.
 */
export async function furtherPasses(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  report: ProcedureReport,
  signal: AbortSignal,
): Promise<void> {
  let before = Math.max(unit.pool.counters().done, littleToTell);
  let told = false;
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
    const slow = left > before / 2;
    if (slow && !told && tracked && isLive(unit)) {
      told = true;
      report.warn(
        'CANNOT_CONVERGE',
        `${unit.pair.device.path} is written about as fast as ${unit.pool.targetName} takes it (${formatBytes(left)} left ` +
          `after pass ${unit.status.pass - 1}), so the freeze may be long`,
        unit.pair.device.path,
      );
    }
    await sendMissing(unit);
    if (!tracked && (slow || differed <= smallDifference)) return;
    if (left > before * stillShrinking) return;
    before = left;
  }
}

/**
 * When everything is ready for the freeze: what has been written since the last pass goes out while it is little, so
 * that the freeze finds less, and what is only in the page cache is written, so that freezing does not wait for it.
 */
export async function lastPass(unit: JobUnit, report: ProcedureReport): Promise<void> {
  let before = Infinity;
  for (let round = 0; round < lastRounds && unit.tracking !== undefined; round++) {
    await syncMounts(unit);
    if (!(await findByTracker(unit, report, true))) break;
    const left = readingBytes(unit);
    if (left <= littleLeft || left > before * 0.7) break;
    await sendMissing(unit);
    before = left;
  }
  await syncMounts(unit);
}

/** Sends what is missing and in use; when it returns, that is confirmed and no longer pending. */
async function sendMissing(unit: JobUnit): Promise<void> {
  const set = missing(unit);
  if (set.isEmpty()) return;
  await unit.pool.copy(set);
  unit.recent.note(set);
  unit.chain.unpublished?.or(set);
  unit.held?.or(set);
  unit.chain.pending.andNot(set);
  unit.chain.besides = unproven(unit, set);
  await unit.chain.savePending();
}

async function fitsAim(unit: JobUnit, bytes: number): Promise<boolean> {
  return (bytes / (await unit.pool.readingRate())) * 1000 <= freezeAimMs;
}
