/** How a device would be backed up, in the few words that `dattocli devices` shows. */
import type { Device } from './device.ts';

/** Filesystem types whose allocation map our readers can read. */
const mapped: ReadonlySet<string> = new Set(['ext2', 'ext3', 'ext4', 'xfs']);

export interface DeviceCondition {
  /** Data could be read from it. */
  readonly readable: boolean;
  readonly suspended: boolean;
  /** A read of it returned in time. */
  readonly answers: boolean;
  /** Number of partitions on it. */
  readonly partitions: number;
}

/** Describes the backup. `type` is the type of the filesystem directly on the device. */
export function describeBackup(type: string | undefined, condition: DeviceCondition): Device['backup'] {
  if (condition.suspended) return { possible: false, how: 'the device is suspended' };
  if (!condition.answers) return { possible: false, how: 'the device does not answer' };
  if (!condition.readable) return { possible: false, how: 'the device cannot be read' };
  if (condition.partitions > 0) return possible('used blocks of each partition');
  if (type === undefined) return possible('every block (no filesystem known)');
  if (type === 'swap') return possible('header only (swap)');
  if (mapped.has(type)) return possible(`used blocks (${type})`);
  return possible(`every block (${type}: no used map)`);
}

function possible(how: string): Device['backup'] {
  return { possible: true, how };
}
