/**
 * The copying passes of one device before the freeze: find what the target lacks, make that durable in the
 * pending map, send it, and let the map shrink when it is confirmed (invariant 3).
 *
 * What the target lacks is found by the tracker where there is one, and by comparing with fingerprints otherwise.
 */
import { Bitmap } from '../base/bitmap.ts';
import { formatBytes } from '../base/bytes.ts';
import { complement } from '../base/extents.ts';
import { wholeUnits } from './copy/segments.ts';
import { inUnit } from '../tracking/chain.ts';
import { fingerprintUnit } from '../tracking/fingerprints.ts';
import type { Feed } from './feed.ts';
import { beginHeld } from './freed.ts';
import type { JobEnvironment, JobOptions } from './job.ts';
import { remap, synced, syncMounts } from './mapping.ts';
import type { ProcedureReport } from './procedure.ts';
import { type JobUnit, isLive, missing } from './unit.ts';

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

/** The first pass by the kind of backup. */
export async function firstPass(unit: JobUnit, report: ProcedureReport): Promise<void> {
  unit.status.pass = 1;
  // What was written until now is read by this pass, and need not be read again by the next one.
  if (unit.plan.kind === 'full') await findByTracker(unit, report, true);
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

/**
 * What stays pending on disk although it was sent, should the job end here.
 *
 * A fingerprint is that of a whole unit as it was read, and where only some blocks of the unit were sent, the others
 * may have been written between the take and the read: the fingerprint is then of bytes that the target lacks. The
 * next take tells, and these blocks are pending then; if there is none (a crash, the end of the epoch), all such
 * units are.
 *
 * And what could not be read is to be read again.
 */
function unproven(unit: JobUnit, sent: Bitmap): Bitmap {
  const besides = unread(unit);
  const resent = unit.pool.takeResent();
  if (unit.tracking === undefined || sent.unit >= fingerprintUnit) return besides;
  for (const set of resent === undefined ? [sent] : [sent, resent])
    for (const { offset, length } of set.extents()) besides.mark(offset, length);
  return besides;
}

/** The places of which the target has zeros instead, in fingerprint units. */
function unread(unit: JobUnit): Bitmap {
  const set = new Bitmap(unit.pool.used.size, fingerprintUnit);
  for (const { offset, length } of unit.pool.readErrors) set.mark(offset, length);
  return set;
}

/** Takes the dirty map, so that what was sent before is proven. Throws EPOCH_ENDED. */
export async function takeDirty(unit: JobUnit, feed: Feed, frozen: boolean): Promise<Bitmap> {
  const { dirty } = await feed.take({ frozen });
  unit.chain.besides = unread(unit);
  return dirty;
}

/** A device that is not frozen at the end: what was written to it since the last pass is pending for the next job. */
export async function takeRest(unit: JobUnit, report: ProcedureReport): Promise<void> {
  if (isLive(unit) || unit.tracking === undefined || unit.chain.besides === undefined) return;
  try {
    await takeDirty(unit, unit.tracking.feed, false);
    await unit.tracking.feed.secure();
  } catch (error) {
    loseTracking(unit, error, report);
  }
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
    const dirty = await takeDirty(unit, unit.tracking.feed, false);
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
  const { chain } = unit;
  unit.tracking = undefined;
  unit.status.tracker = 'none';
  if (chain.besides !== undefined) chain.pending.or(inUnit(chain.besides, chain.pending.unit));
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
  // Whole units: of what is written between this read and the next one nobody tells.
  for (const { offset, length } of wholeUnits(missing(unit))) chain.pending.mark(offset, length);
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
  return (bytes / (await unit.pool.readingRate())) * 1000 <= freezeAimMs;
}
