/**
 * fallocate(2): holes and zeros in files (modes of include/uapi/linux/falloc.h; Node has no call for it).
 * Each call blocks its thread until the filesystem is done: microseconds for a hole in a small file, longer for a hole
 * over many extents.
 *
 * Errors are SystemCallErrors. EOPNOTSUPP: the filesystem does not support the operation.
 */
import { checked, declare } from './libc.ts';

const KEEP_SIZE = 0x01;
const PUNCH_HOLE = 0x02;
const ZERO_RANGE = 0x10;

const fallocate = declare<[fd: number, mode: number, offset: number, length: number]>('fallocate', 'int', [
  'int',
  'int',
  'int64',
  'int64',
]);

/** Frees `[offset, offset + length)`. The range then reads as zeros; partial blocks are zeroed in place. */
export function punchHole(fd: number, offset: number, length: number): void {
  checked(fallocate, [fd, PUNCH_HOLE | KEEP_SIZE, offset, length], 'fallocate PUNCH_HOLE');
}

/** Makes the range read as zeros and keeps space allocated for it, so later writes cannot get ENOSPC. */
export function zeroRange(fd: number, offset: number, length: number): void {
  checked(fallocate, [fd, ZERO_RANGE | KEEP_SIZE, offset, length], 'fallocate ZERO_RANGE');
}

/** Allocates space for the range. Existing data stays, and holes still read as zeros. */
export function allocate(fd: number, offset: number, length: number): void {
  checked(fallocate, [fd, KEEP_SIZE, offset, length], 'fallocate');
}
