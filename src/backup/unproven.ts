/** What counts as lacking at the target although it was sent, until more is known (docs/formats/chain.md). */
import { Bitmap } from '../base/bitmap.ts';
import { fingerprintUnit } from '../tracking/fingerprints.ts';
import type { JobUnit } from './unit.ts';

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
export function unproven(unit: JobUnit, sent: Bitmap): Bitmap {
  const besides = unread(unit);
  const resent = unit.pool.takeResent();
  const atOnce = Math.max(sent.unit, unit.pool.facts.minimumBlock);
  if (unit.tracking === undefined || atOnce >= fingerprintUnit) return besides;
  for (const set of resent === undefined ? [sent] : [sent, resent])
    for (const { offset, length } of set.extents()) besides.mark(offset, length);
  return besides;
}

/** The places of which the target has zeros instead, in fingerprint units. */
export function unread(unit: JobUnit): Bitmap {
  const set = new Bitmap(unit.pool.used.size, fingerprintUnit);
  for (const { offset, length } of unit.pool.readErrors) set.mark(offset, length);
  return set;
}
