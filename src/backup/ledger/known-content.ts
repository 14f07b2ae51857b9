/** The content that a target is known to hold, by its chain: valid fingerprints, and samples for a check. */
import { Bitmap } from '../../base/bitmap.ts';
import type { Chain } from '../../tracking/chain.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';

/**
 * Units of the target that a drift check reads, in addition to the superblock areas and the units that were sent last.
 */
const driftSamples = 64;

/**
 * Returns the set without the fingerprint units that the target lacks, or may lack, in part: their fingerprints are not
 * valid.
 */
export function knownUnits(chain: Chain, set: Bitmap): Bitmap {
  const known = set.clone();
  for (const lacking of [chain.pending, chain.unconfirmed])
    for (const { offset, length } of lacking?.extents() ?? []) {
      const first = Math.floor(offset / fingerprintUnit) * fingerprintUnit;
      const end = Math.ceil((offset + length) / fingerprintUnit) * fingerprintUnit;
      known.clear(first, end - first);
    }
  return known;
}

/**
 * Returns a sample of the content that the target is known to hold: always the superblock areas and the units that the
 * last job sent, and random other places.
 */
export function driftSample(chain: Chain): Bitmap {
  const { size, unit } = chain.pending;
  const set = new Bitmap(size, unit);
  const units = Math.ceil(size / fingerprintUnit);
  const step = Math.max(1, Math.floor(units / driftSamples));
  const places = [0, 1, units - 1, ...(chain.record.recent ?? [])];
  for (let place = Math.floor(Math.random() * step); place < units; place += step) places.push(place);
  for (const place of places) if (place < units) set.mark(place * fingerprintUnit, fingerprintUnit);
  return knownUnits(chain, set);
}
