/**
 * The result of a filesystem reader. Readers are pure over `readAt`, and they never guess: if anything is unknown,
 * unreadable or fails its checksum, everything is used and `reason` says why.
 */
import type { Extent } from '../base/extents.ts';
import type { ReadAt } from '../block/source.ts';

export interface FilesystemIdentity {
  /** `ext2`, `ext3`, `ext4`, `xfs`, `swap`, `vfat`, `btrfs`, `crypto_LUKS`, `LVM2_member`, … (blkid's names). */
  readonly type: string;
  /** As blkid prints it; undefined if the filesystem has none. */
  readonly uuid: string | undefined;
  readonly label: string | undefined;
  /** Bytes; undefined if the type has no block size. */
  readonly blockSize: number | undefined;
  /** End of the filesystem in bytes from its start; at most the device's size. */
  readonly size: number | undefined;
}

export interface UsedMap {
  readonly filesystem: FilesystemIdentity | undefined;
  /** True if the reader could not tell used from free blocks, so that the extents cover the whole device. */
  readonly everything: boolean;
  /** For the user: why everything is used, an external journal or log, … Empty if there is nothing to report. */
  readonly warnings: readonly string[];
  /**
   * The used extents in batches: sorted by offset, disjoint, not empty, within the device. One batch holds some block
   * groups, so that walking does not cost a promise for each extent. The bytes before, between and after filesystems
   * are used. Walk it once. If `everything` could not be known beforehand, the walk throws FILESYSTEM_UNREADABLE; the
   * caller then treats everything as used (see mark-used.ts, read-verified-used-map.ts).
   */
  readonly extents: AsyncIterable<readonly Extent[]>;
  /** The same map group by group; only with the option `keep`, and only if the reader has groups. */
  readonly grouped?: GroupedMap | undefined;
}

/**
 * A used map in groups (block groups, allocation groups). The used blocks of a group follow only from a few blocks of
 * the device and from the filesystem's layout. So if the layout is the same and none of these blocks was written, the
 * group need not be read again.
 */
export interface GroupedMap {
  readonly count: number;
  /** Returns the begin of a group in bytes. Group 0 begins at 0, and the last one ends with the device. */
  startOf(group: number): number;
  /** The groups that `read` reads, in ascending order; undefined: all of them. */
  readonly stale: readonly number[] | undefined;
  /** Why all groups are read, although an earlier map was given. */
  readonly whyAll: string | undefined;
  /** Reads the stale groups, in ascending order. Throws as the walk of `extents` does. Walk it once. */
  read(): AsyncIterable<readonly GroupPart[]>;
}

/** A part of the used extents of a group. */
export interface GroupPart {
  readonly group: number;
  /** Sorted, disjoint, within the group, and behind the extents of the part before. */
  readonly extents: readonly Extent[];
  /** True for the last part of the group. */
  readonly last: boolean;
  /** Set with the last part: the group of a running filesystem was inconsistent, and counts as used. */
  readonly inFlux?: boolean;
}

/** A map that was read before with the option `keep`. */
export interface EarlierMap {
  readonly grouped: GroupedMap;
  /** True if any byte of the range may have been written since the reading of that map began. */
  readonly isWritten: (offset: number, length: number) => boolean;
}

/**
 * The state of the filesystem while its map is read, which the reader cannot see on the device.
 * - `idle`: not mounted, or mounted read-only. A dirty journal or log makes everything used.
 * - `frozen`: mounted, and frozen by us now. The metadata on disk is current, whether the journal's flags say so or
 *   not.
 * - `live`: mounted and running. The map is only a tentative plan. The journal's state and small inconsistencies
 *   between counters are ignored.
 */
export type MountState = 'idle' | 'frozen' | 'live';

/** The filesystem that the kernel uses on a device, according to its mounts. */
export interface ExpectedFilesystem {
  /** The kernel's name, as in /proc/self/mountinfo. */
  readonly type: string;
  /** Undefined if only the type is known. */
  readonly uuid?: string | undefined;
  /** For the user: `/dev/sdb is mounted`. */
  readonly how: string;
}

export interface UsedMapOptions {
  readonly signal?: AbortSignal;
  /** Default `idle`. */
  readonly state?: MountState;
  /** If given, a filesystem of any other kind is stale, and every block is used. */
  readonly expected?: ExpectedFilesystem | undefined;
  /** Requests a map with groups (`grouped`), so that a later reading may begin with it. */
  readonly keep?: boolean;
  /** Only with `keep`. The reading takes over the parts that are still valid; do not use the earlier map afterwards. */
  readonly earlier?: EarlierMap | undefined;
}

/** Reads the used map of a filesystem (or whole disk) that occupies `[0, deviceSize)` of `readAt`. */
export type UsedMapReader = (
  readAt: ReadAt,
  deviceSize: number,
  options?: UsedMapOptions,
) => Promise<UsedMap>;

/** The map in which every byte is used. */
export function everythingUsed(deviceSize: number, reason: string, filesystem?: FilesystemIdentity): UsedMap {
  return {
    filesystem,
    everything: true,
    warnings: [reason],
    extents: oneBatch([{ offset: 0, length: deviceSize }]),
  };
}

// eslint-disable-next-line @typescript-eslint/require-await -- the shape is asynchronous, this one needs no waiting
async function* oneBatch(extents: readonly Extent[]): AsyncGenerator<readonly Extent[]> {
  if (extents.some((extent) => extent.length > 0)) yield extents;
}
