/**
 * Reads the signs of life of a filesystem that is not mounted for writing. Every mount for writing changes these values
 * on the disk before it writes anything else. If they are the same, no kernel has written to the filesystem in the
 * meantime. docs/formats/reboot.md lists them and gives the reasons. Pure over `readAt`.
 */
import type { ReadAt } from '../block/source.ts';
import { extSigns } from './ext/signs-of-life.ts';
import { probe } from './probe.ts';
import type { Signs } from './signs.ts';
import { xfsSigns } from './xfs/signs-of-life.ts';

/** Returns the signs, or a phrase that says why there are no reliable ones. Throws the errors of `readAt`. */
export async function readSignsOfLife(readAt: ReadAt, deviceSize: number): Promise<Signs | string> {
  const type = (await probe(readAt, deviceSize))?.type;
  switch (type) {
    case 'ext3':
    case 'ext4':
      return extSigns(readAt, deviceSize);
    case 'xfs':
      return xfsSigns(readAt, deviceSize);
    case undefined:
      return 'it has no filesystem of its own, whose signs would tell whether it was written to';
    default:
      return `${type} has no signs that tell whether it was written to`;
  }
}
