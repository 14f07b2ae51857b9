import { MiB } from '../../base/bytes.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';

/** With a larger unit, too much would be read and sent for one used block. */
const largestUnit = 256 * 1024;

/**
 * Returns the bytes per bit of the maps of a device that nothing tracks. No tracker knows its single blocks, and larger
 * units keep the bitmaps small: 4 MiB each up to 8 TiB.
 */
export function untrackedUnit(size: number): number {
  let unit = fingerprintUnit;
  while (unit < largestUnit && size / unit > 32 * MiB) unit *= 2;
  return unit;
}
