/**
 * The copying passes of one device before the freeze: find what the target lacks (finding.ts), send it, and let the
 * pending map shrink when it is confirmed (invariant 3).
 */
import { MiB } from '../base/bytes.ts';
import {
  findByComparing,
  findByReadingTarget,
  findByTracker,
  readingBytes,
  roomNeeded,
  toRead,
} from './finding.ts';
import { settleIdle, wasWritten } from './idle-passes.ts';
import type { JobEnvironment, JobOptions } from './job.ts';
import { refreshMap, remap, remapIdle, syncMounts } from './mapping.ts';
import type { JobReporter } from './job-reporter.ts';
import { sendMissing } from './send-missing.ts';
import { type JobUnit, isLive, missing } from './unit.ts';

/** The reading inside the freeze that passes aim at, in milliseconds. */
const freezeAimMs = 25;

/** Rounds right before the freeze, bytes to read that are not worth one, and how much of the last one may be left. */
const lastRounds = 6;
const littleLeft = MiB;
const shrinkingFast = 0.8;

/** Of what the pass before had: with more than that left, another pass helps little. */
const stillShrinking = 0.9;

/** Bytes; a first pass that sent less says nothing of how fast the device is written. */
const littleToTell = 32 * MiB;

/** Bytes that may differ at the freeze without another comparing pass being worth it. */
const smallDifference = 8 * MiB;

/** The first pass by the kind of backup. */
export async function firstPass(unit: JobUnit, report: JobReporter): Promise<void> {
  unit.status.pass = 1;
  // What was written until now is read by this pass, and need not be read again by the next one.
  if (unit.plan.kind === 'full') await findByTracker(unit, report, true);
  if (unit.plan.readTarget === true) await findByReadingTarget(unit);
  if (unit.plan.kind === 'differential') await findByComparing(unit);
  if (unit.plan.kind === 'incremental' && !(await findByTracker(unit, report, true)))
    await findByComparing(unit);
  // What was written while the map was read is known to the tracker, and to later takes no more.
  if (!isLive(unit) && unit.tracking !== undefined && (await wasWritten(unit))) await remapIdle(unit);
  await sendMissing(unit);
}

/**
 * Passes go on while each leaves less than the one before, until what is left is read within the aim. If a device is
 * written as fast as the target takes it, or as passes take it that are held back for other work, the rounds before the
 * freeze do without the target and without holding back; nothing is slowed down.
 */
export async function furtherPasses(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  report: JobReporter,
  signal: AbortSignal,
): Promise<void> {
  if (!isLive(unit)) {
    if (unit.tracking !== undefined) await settleIdle(unit, options.maxPasses, report, signal);
    return;
  }
  let before = Math.max(unit.pool.counters().done, littleToTell);
  while (unit.status.pass < options.maxPasses) {
    signal.throwIfAborted();
    unit.status.pass++;
    await remap(unit, options, environment, report, signal);
    const tracked = await findByTracker(unit, report, true);
    const differed = tracked ? 0 : await findByComparing(unit);
    const left = tracked ? readingBytes(unit) : differed;
    unit.status.bytes_unsynced = left;
    if (left === 0) return;
    const enough = tracked ? await fitsAim(unit, left) : false;
    if (enough) return;
    await sendMissing(unit);
    if (!tracked && (left > before / 2 || differed <= smallDifference)) return;
    if (left > before * stillShrinking) return;
    before = left;
  }
}

/**
 * When everything is ready for the freeze: what has been written since the last pass is read into memory, in rounds that
 * each find less, however slow the target is, so that the freeze finds little. If memory has no room, it goes to the
 * target. And what is only in the page cache is written, so that freezing does not wait for it.
 */
export async function lastPass(unit: JobUnit, report: JobReporter): Promise<void> {
  let before = Infinity;
  for (let round = 0; round < lastRounds && unit.tracking !== undefined; round++) {
    await syncMounts(unit);
    if (!(await findByTracker(unit, report, true))) break;
    await refreshMap(unit);
    const left = toRead(unit).bytes();
    unit.status.bytes_unsynced = missing(unit).bytes();
    if (left <= littleLeft || left > before * shrinkingFast) break;
    if (roomNeeded(unit) > unit.pool.roomLeft || !(await unit.pool.stash(missing(unit))))
      await sendAgain(unit);
    before = left;
  }
  await syncMounts(unit);
}

/** After a freeze that found too much, or one that would be too long: all that is missing goes to the target. */
export async function anotherPass(unit: JobUnit, report: JobReporter): Promise<void> {
  unit.status.pass++;
  await syncMounts(unit);
  if (await findByTracker(unit, report, true)) await sendAgain(unit);
}

/** What was in memory goes to the target as it is on the device now. */
async function sendAgain(unit: JobUnit): Promise<void> {
  await unit.pool.dropSpool();
  await sendMissing(unit);
}

async function fitsAim(unit: JobUnit, bytes: number): Promise<boolean> {
  return (bytes / (await unit.pool.readingRate())) * 1000 <= freezeAimMs;
}
