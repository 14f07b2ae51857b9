/** The used map for callers that stream it out and cannot take anything back: `everything` is final. */
import type { ReadAt } from '../block/source.ts';
import { type ReadUsedMapOptions, readUsedMap } from './read-used-map.ts';
import type { UsedMap } from './used-map.ts';
import { verifiedUsedMap } from './verified-used-map.ts';

/**
 * The same as `readUsedMap`, but walked once beforehand (so it takes twice as long), and the walk does not end early.
 */
export function readVerifiedUsedMap(
  readAt: ReadAt,
  deviceSize: number,
  sectorSize: number,
  options: ReadUsedMapOptions = {},
): Promise<UsedMap> {
  return verifiedUsedMap(deviceSize, () => readUsedMap(readAt, deviceSize, sectorSize, options));
}
