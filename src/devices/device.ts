/** A block device of this machine as the inventory describes it. */
import type { FilesystemIdentity } from '../filesystems/used-map.ts';

export interface Mount {
  /** Mount point as the kernel knows it, without escapes. */
  readonly path: string;
  /** The filesystem itself is read-only. A read-only bind mount of a writable filesystem does not count. */
  readonly readOnly: boolean;
  /** Path within the filesystem that is mounted here. `/`, except for bind mounts and subvolumes. */
  readonly root: string;
  readonly type: string;
  /** Another mount lies over this one, so the path leads elsewhere. */
  readonly covered?: boolean;
}

export interface PartitionInfo {
  /** Path of the whole disk, `/dev/sda`. */
  readonly disk: string;
  readonly number: number;
  /** Bytes from the start of the disk. */
  readonly start: number;
  readonly uuid: string | undefined;
  readonly label: string | undefined;
  readonly table: 'gpt' | 'mbr';
}

export interface Device {
  /** The name to show: `/dev/sda1`, `/dev/mapper/vg-root`, … */
  readonly path: string;
  /** Kernel name: `sda1`, `dm-0`, `loop3`. */
  readonly kernelName: string;
  readonly major: number;
  readonly minor: number;
  /** `file` is an image file, which the offline tools treat as a device. It is never in the inventory. */
  readonly kind: 'disk' | 'partition' | 'loop' | 'dm' | 'md' | 'file' | 'other';
  /** Bytes. */
  readonly size: number;
  readonly sectorSize: number;
  readonly physicalSectorSize: number;
  /** The kernel's number for this attachment of the disk (5.15 and later), never used twice before a reboot. */
  readonly diskSequence?: number | undefined;
  /** The block device itself is read-only. */
  readonly readOnly: boolean;
  readonly partition: PartitionInfo | undefined;
  /** Kernel names of the devices that lie on this one: LVM, md, crypt, but not partitions. */
  readonly holders: readonly string[];
  /**
   * Kernel names of the devices that this one lies on. For a partition this is its disk, for a loop device the device
   * under its file.
   */
  readonly lowers: readonly string[];
  /** Path of the file behind a loop device. */
  readonly backingFile: string | undefined;
  readonly filesystem: FilesystemIdentity | undefined;
  /** Mounts of the filesystem directly on this device, by device number. The first is the best one to reach it. */
  readonly mounts: readonly Mount[];
  /** Bytes in use, from statfs, if it is mounted. */
  readonly used: number | undefined;
  /** How it would be backed up: `used blocks`, `every block`, or why it cannot be (`swap in use`, …). */
  readonly backup: { readonly possible: boolean; readonly how: string };
}
