/** How a device would be backed up, in the few words that `dattocli devices` shows. */
import type { Device } from './device.ts';

/** Types whose used map our readers know. */
const mapped: ReadonlySet<string> = new Set(['ext2', 'ext3', 'ext4', 'xfs']);

/** Types that the kernel can freeze (those with freeze_fs or freeze_super in their super_operations). */
const freezable: ReadonlySet<string> = new Set([
  ...mapped,
  'btrfs',
  'f2fs',
  'jfs',
  'reiserfs',
  'nilfs2',
  'gfs2',
  'bcachefs',
]);

export interface Circumstances {
  /** Something could be read from it. */
  readonly readable: boolean;
  readonly suspended: boolean;
  /** Number of partitions on it. */
  readonly partitions: number;
}

export function describeBackup(
  device: Pick<Device, 'filesystem' | 'mounts'>,
  circumstances: Circumstances,
): Device['backup'] {
  if (circumstances.suspended) return impossible('the device is suspended');
  if (!circumstances.readable) return impossible('the device cannot be read');
  const writable = device.mounts.find((mount) => !mount.readOnly);
  if (writable !== undefined && !freezable.has(writable.type))
    return impossible(`${writable.type} cannot be frozen; unmount it or mount it read-only`);
  if (circumstances.partitions > 0) return possible('used blocks of each partition');
  const type = device.filesystem?.type;
  if (type === undefined) return possible('every block (no filesystem known)');
  if (type === 'swap') return possible('header only (swap)');
  if (mapped.has(type)) return possible(`used blocks (${type})`);
  return possible(`every block (${type}: no used map)`);
}

function possible(how: string): Device['backup'] {
  return { possible: true, how };
}

function impossible(reason: string): Device['backup'] {
  return { possible: false, how: `not possible: ${reason}` };
}
