/** What a target is known to hold, by its chain: fingerprints that are true of it, and samples for a check. */
import { Bitmap } from '../../base/bitmap.ts';
import type { Chain } from '../../tracking/chain.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';

/** Units of the target that a drift check reads besides the areas of the superblocks and what was sent last. */
const driftSamples = 64;

/**
 * Returns the set without the fingerprint units of which the target lacks a part, or may lack one: their fingerprints do
 * not count.
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
 * Returns some of what the target is known to hold: always the areas of the superblocks and what the last job sent, and
 * other places by chance.
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
