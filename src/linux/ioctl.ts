/**
 * The ioctls of block devices and of freezing. Numbers are those of x86-64 and arm64 (include/uapi/linux/fs.h;
 * _IO(0x12, n), _IOR and _IOWR('X', n)). Errors are SystemCallErrors with errno's name.
 */
import { checked, checkedAsync, declare } from './libc.ts';

const BLKROGET = 0x125e;
const BLKRRPART = 0x125f;
const BLKSSZGET = 0x1268;
const BLKDISCARD = 0x1277;
const BLKPBSZGET = 0x127b;
const BLKZEROOUT = 0x127f;
const BLKGETSIZE64 = 0x80081272;
const FIFREEZE = 0xc0045877;
const FITHAW = 0xc0045878;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

const ioctl = declare<[fd: number, request: number, argument: Uint8Array | null]>('ioctl', 'int', [
  'int',
  'uint64',
  'void *',
]);

const fallocate = declare<[fd: number, mode: number, offset: number, length: number]>('fallocate', 'int', [
  'int',
  'int',
  'int64',
  'int64',
]);

/** Size of an open block device in bytes. */
export function blockDeviceSize(fd: number): number {
  const answer = Buffer.alloc(8);
  checked(ioctl, [fd, BLKGETSIZE64, answer], 'ioctl BLKGETSIZE64');
  return Number(answer.readBigUInt64LE());
}

/** Logical and physical sector size of an open block device, in bytes. */
export function blockDeviceSectors(fd: number): { logical: number; physical: number } {
  return { logical: getInt(fd, BLKSSZGET, 'BLKSSZGET'), physical: getInt(fd, BLKPBSZGET, 'BLKPBSZGET') };
}

/** True if the block device itself refuses writes. */
export function blockDeviceReadOnly(fd: number): boolean {
  return getInt(fd, BLKROGET, 'BLKROGET') !== 0;
}

/**
 * Makes the kernel read the partition table of a whole disk again. EBUSY: a partition is in use. EINVAL: the kernel
 * does not support partitions on this device.
 */
export async function rereadPartitions(fd: number): Promise<void> {
  await checkedAsync(ioctl, [fd, BLKRRPART, null], 'ioctl BLKRRPART');
}

/** Discards a range (multiples of the sector size). Reads of the range are undefined afterwards. */
export async function discard(fd: number, offset: number, length: number): Promise<void> {
  await checkedAsync(ioctl, [fd, BLKDISCARD, range(offset, length)], 'ioctl BLKDISCARD');
}

/** Makes a range (multiples of the sector size) read as zeros, with a command of the device if it has one. */
export async function zeroOut(fd: number, offset: number, length: number): Promise<void> {
  await checkedAsync(ioctl, [fd, BLKZEROOUT, range(offset, length)], 'ioctl BLKZEROOUT');
}

/**
 * Makes a range read as zeros and allows the device to free the space, if the device can do so quickly. If not:
 * EOPNOTSUPP. (fallocate on a block device, block/fops.c: blkdev_fallocate.)
 */
export async function unmapZeroes(fd: number, offset: number, length: number): Promise<void> {
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  await checkedAsync(fallocate, [fd, mode, offset, length], 'fallocate PUNCH_HOLE');
}

/**
 * Freezes the filesystem of the open file or directory, on a thread of the pool. Takes as long as the kernel needs to
 * write its dirty data. EBUSY: frozen already. EOPNOTSUPP: this type of filesystem cannot be frozen.
 */
export async function freezeFilesystem(fd: number): Promise<void> {
  await checkedAsync(ioctl, [fd, FIFREEZE, Buffer.alloc(8)], 'ioctl FIFREEZE');
}

/** Thaws the filesystem, on a thread of the pool. EINVAL: it was not frozen. */
export async function thawFilesystem(fd: number): Promise<void> {
  await checkedAsync(ioctl, [fd, FITHAW, Buffer.alloc(8)], 'ioctl FITHAW');
}

/**
 * Thaws the filesystem on this thread. A process needs this if all threads of its pool may be waiting for the frozen
 * filesystem.
 */
export function thawFilesystemNow(fd: number): void {
  checked(ioctl, [fd, FITHAW, Buffer.alloc(8)], 'ioctl FITHAW');
}

function getInt(fd: number, request: number, name: string): number {
  const answer = Buffer.alloc(8);
  checked(ioctl, [fd, request, answer], `ioctl ${name}`);
  return answer.readUInt32LE();
}

function range(offset: number, length: number): Buffer {
  const pair = Buffer.alloc(16);
  pair.writeBigUInt64LE(BigInt(offset), 0);
  pair.writeBigUInt64LE(BigInt(length), 8);
  return pair;
}
