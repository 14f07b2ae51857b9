/**
 * Reads the used map of one filesystem that begins at byte 0: probes, and calls the reader of its type. Does not handle
 * partition tables: see read-used-map.ts.
 */
import type { ReadAt } from '../block/source.ts';
import { readExtUsedMap } from './ext/ext.ts';
import { type Signature, findSignatures, typesOf } from './signatures/signatures.ts';
import { readSwapUsedMap } from './swap/swap.ts';
import {
  type ExpectedFilesystem,
  type FilesystemIdentity,
  type UsedMap,
  type UsedMapOptions,
  type UsedMapReader,
  everythingUsed,
} from './used-map.ts';
import { readXfsUsedMap } from './xfs/xfs.ts';

const readers: Readonly<Record<string, UsedMapReader>> = {
  ext2: readExtUsedMap,
  ext3: readExtUsedMap,
  ext4: readExtUsedMap,
  ext4dev: readExtUsedMap,
  jbd: readExtUsedMap,
  xfs: readXfsUsedMap,
  swap: readSwapUsedMap,
  swsuspend: readSwapUsedMap,
};

/** Types that hold filesystems. A signature below them belongs to their contents or is stale, and is never read. */
const containers: ReadonlySet<string> = new Set([
  'linux_raid_member',
  'LVM2_member',
  'crypto_LUKS',
  'bcache',
  'drbd',
]);

export interface FilesystemMap {
  readonly map: UsedMap;
  /** False if every block is used because this type has no reader: this is not an error. */
  readonly hasReader: boolean;
}

/** `signatures`: the result of `findSignatures`, if the caller has it already. */
export async function readFilesystemUsedMap(
  readAt: ReadAt,
  deviceSize: number,
  options: UsedMapOptions,
  signatures?: readonly Signature[],
): Promise<FilesystemMap> {
  const found = signatures ?? (await findSignatures(readAt, deviceSize));
  const types = typesOf(found);
  const [first] = found;
  if (first === undefined)
    return { map: everythingUsed(deviceSize, 'no known filesystem'), hasReader: false };
  const { identity } = first;
  if (types.length > 1 && !containers.has(identity.type)) {
    const reason = `signatures of ${types.join(' and ')}: it cannot be told which is stale (see wipefs)`;
    const hasReader = types.some((type) => readers[type] !== undefined);
    return { map: everythingUsed(deviceSize, reason, identity), hasReader };
  }
  const reader = readers[identity.type];
  if (reader === undefined) {
    const reason = `${identity.type}: every block is used, there is no reader for its free space`;
    return { map: everythingUsed(deviceSize, reason, identity), hasReader: false };
  }
  const doubt = options.expected && disagreement(identity, options.expected);
  if (doubt !== undefined) return { map: everythingUsed(deviceSize, doubt, identity), hasReader: true };
  return { map: await reader(readAt, deviceSize, options), hasReader: true };
}

/**
 * Returns why the signature does not match the filesystem in use. A signature may be stale: ZFS, for example, leaves
 * the superblock of XFS in its place.
 */
function disagreement(found: FilesystemIdentity, expected: ExpectedFilesystem): string | undefined {
  const same = family(found.type) === family(expected.type);
  if (same && (expected.uuid === undefined || expected.uuid === found.uuid)) return undefined;
  return (
    `${expected.how} as ${expected.type}${expected.uuid === undefined ? '' : ` (${expected.uuid})`}, but its signature ` +
    `is of ${found.type} (${found.uuid ?? 'no UUID'}): every block is used`
  );
}

/** The kernel also mounts ext2 and ext3 as ext4. */
function family(type: string): string {
  return type.startsWith('ext') ? 'ext' : type;
}
