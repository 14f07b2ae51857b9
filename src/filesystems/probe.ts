/** What a device holds, in blkid's words. */
import type { ReadAt } from '../block/source.ts';
import { type Signature, findSignatures } from './signatures/signatures.ts';
import type { FilesystemIdentity } from './used-map.ts';

/**
 * The identity of what begins at byte 0; undefined where nothing is known. Where several signatures are found
 * the first in blkid's order of preference counts (RAID, LVM and LUKS before filesystems); the used map takes
 * such a device as used as a whole. Throws DEVICE_READ_ERROR or FILESYSTEM_UNREADABLE.
 */
export async function probe(readAt: ReadAt, deviceSize: number): Promise<FilesystemIdentity | undefined> {
  if (deviceSize <= 0) return undefined;
  const signatures: readonly Signature[] = await findSignatures(readAt, deviceSize);
  return signatures.find(({ named }) => named)?.identity;
}
