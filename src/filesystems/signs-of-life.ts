/**
 * Signs of life of a filesystem that is not mounted for writing: values that every mount for writing changes, on the
 * disk, before anything else of it is written. Where they are the same, no kernel has written to it meanwhile.
 * docs/formats/reboot.md says which they are and why. Pure over `readAt`.
 */
import type { ReadAt } from '../block/source.ts';
import { extSigns } from './ext/signs-of-life.ts';
import { probe } from './probe.ts';
import type { Signs } from './signs.ts';
import { xfsSigns } from './xfs/signs-of-life.ts';

/** The signs, or a phrase that says why there are none that could be trusted. Throws what `readAt` throws. */
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
