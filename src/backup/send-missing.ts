/** Sending what the target lacks. */
import type { Bitmap } from '../base/bitmap.ts';
import { type JobUnit, missing } from './unit.ts';
import { unproven, unread } from './unproven.ts';

/** Sends what is missing and in use; when it returns, that is confirmed and no longer pending. */
export async function sendMissing(unit: JobUnit): Promise<void> {
  // The target gets whole blocks of its own, as they were read: all of that is on it then.
  const set = unit.pool.granular(missing(unit));
  if (set.isEmpty()) return;
  await unit.pool.copy(set);
  unit.recent.note(set);
  unit.chain.unpublished?.or(set);
  unit.held?.or(set);
  unit.chain.pending.andNot(set);
  unit.chain.besides = unproven(unit, set);
  await saveSent(unit);
}

/**
 * The blocks that were read in the freeze are confirmed and no longer pending, except those that could not be read:
 * they stay pending on disk, also if this job does not complete.
 */
export async function noteKept(unit: JobUnit, kept: Bitmap): Promise<void> {
  const { chain } = unit;
  chain.unpublished?.or(kept);
  unit.held?.or(kept);
  chain.pending.andNot(kept);
  chain.besides = unread(unit);
  await saveSent(unit);
}

/**
 * Durable: the target has what was sent. The record comes first, so that the next drift check reads some of it back
 * even if this job never completes: the server may lose it, or be started again over an older copy of the image.
 */
export async function saveSent({ chain, recent, image }: JobUnit): Promise<void> {
  if (image === undefined) await chain.save({ recent: recent.units });
  await chain.savePending();
}
