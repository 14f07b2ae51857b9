/** Identifies the contents of a device, with blkid's names. */
import type { ReadAt } from '../block/source.ts';
import { type Signature, findSignatures } from './signatures/signatures.ts';
import type { FilesystemIdentity } from './used-map.ts';

/**
 * Returns the identity of the contents that begin at byte 0; undefined if nothing is known. If several signatures are
 * found, the first in blkid's order of preference counts (RAID, LVM and LUKS before filesystems). The used map treats
 * such a device as used as a whole. Throws DEVICE_READ_ERROR or FILESYSTEM_UNREADABLE.
 */
export async function probe(readAt: ReadAt, deviceSize: number): Promise<FilesystemIdentity | undefined> {
  if (deviceSize <= 0) return undefined;
  const signatures: readonly Signature[] = await findSignatures(readAt, deviceSize);
  return signatures.find(({ named }) => named)?.identity;
}
