/**
 * fallocate(2): holes and zeros in files (modes of include/uapi/linux/falloc.h; Node has no call for it).
 * Everything blocks its thread as long as the filesystem takes: microseconds for a hole in a small file,
 * longer for one over many extents.
 *
 * Errors are SystemCallErrors; EOPNOTSUPP where the filesystem has no such operation.
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

/** Frees `[offset, offset + length)`, which reads as zeros afterwards; partial blocks are zeroed in place. */
export function punchHole(fd: number, offset: number, length: number): void {
  checked(fallocate, [fd, PUNCH_HOLE | KEEP_SIZE, offset, length], 'fallocate PUNCH_HOLE');
}

/** Makes the range read as zeros and keeps (or gets) room for it, so that later writes cannot meet ENOSPC. */
export function zeroRange(fd: number, offset: number, length: number): void {
  checked(fallocate, [fd, ZERO_RANGE | KEEP_SIZE, offset, length], 'fallocate ZERO_RANGE');
}

/** Gets room for the range; what is there stays, holes read as zeros as before. */
export function allocate(fd: number, offset: number, length: number): void {
  checked(fallocate, [fd, KEEP_SIZE, offset, length], 'fallocate');
}
