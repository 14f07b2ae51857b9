/**
 * Finding what the target of a device lacks: by the tracker where there is one, otherwise by comparing with the
 * fingerprints. What was found is durable in the pending map before any of it is sent (invariant 3).
 */
import type { Bitmap } from '../base/bitmap.ts';
import { inUnit } from '../tracking/chain.ts';
import { wholeUnits } from './copy/segments.ts';
import type { Feed } from './feed.ts';
import type { JobReporter } from './job-reporter.ts';
import { expectation, knownUnits } from './prepare-chain.ts';
import { type JobUnit, missing, synced } from './unit.ts';
import { unread } from './unproven.ts';

/** Takes the dirty map, so that what was sent before is proven. Throws EPOCH_ENDED. */
export async function takeDirty(unit: JobUnit, feed: Feed, frozen: boolean): Promise<Bitmap> {
  const { dirty } = await feed.take({ frozen });
  unit.written.add(dirty);
  unit.chain.besides = unread(unit);
  unit.pool.forgetStashed(inUnit(dirty, unit.pool.stashed.unit));
  return dirty;
}

/**
 * `further`: the map is older than what is taken now, so that where it could not be read anew, what has been
 * written since counts as used.
 *
 * False where tracking has ended, which is said, and from then on the device is compared.
 */
export async function findByTracker(unit: JobUnit, report: JobReporter, further = false): Promise<boolean> {
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
export function loseTracking(unit: JobUnit, error: unknown, report: JobReporter): void {
  if (!isEpochEnd(error)) throw error;
  const { chain } = unit;
  unit.tracking = undefined;
  unit.written.lose();
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

/**
 * Marks the units of which the target holds something else than their fingerprints say, in memory. For fingerprints that
 * may be older than the target: a block that is as it was then would be taken for one that the target holds.
 */
export async function findByReadingTarget({ pool, chain }: JobUnit): Promise<void> {
  let before;
  do {
    before = pool.reconnects;
    const { found } = await pool.verify(knownUnits(chain, pool.used));
    for (const { offset, length } of found.extents()) chain.pending.mark(offset, length);
    // A server that was lost meanwhile may have come back with another image.
  } while (pool.reconnects > before);
  pool.expect(expectation(chain));
}

/** Marks the units that differ from their fingerprints as pending, durably; how many bytes that is. */
export async function findByComparing(unit: JobUnit): Promise<number> {
  const { pool, chain } = unit;
  const found = await pool.compare(pool.used);
  for (const { offset, length } of found.extents()) chain.pending.mark(offset, length);
  // Whole units: of what is written between this read and the next one nobody tells.
  for (const { offset, length } of wholeUnits(missing(unit))) chain.pending.mark(offset, length);
  await chain.savePending();
  return found.bytes();
}

/** What the freeze would have to read now: what the target lacks and memory does not hold. */
export function toRead(unit: JobUnit): Bitmap {
  const set = missing(unit);
  set.andNot(unit.pool.stashed);
  return set;
}

/** Bytes of memory that reading it needs, besides those that are used again. */
export function roomNeeded(unit: JobUnit): number {
  return Math.max(0, toRead(unit).bytes() - unit.pool.roomToReuse);
}

/** Bytes of the fingerprint units that a pass would have to read now. */
export function readingBytes(unit: JobUnit): number {
  let bytes = 0;
  for (const { length } of wholeUnits(toRead(unit))) bytes += length;
  return bytes;
}
