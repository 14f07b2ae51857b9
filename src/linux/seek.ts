/**
 * Finds data and holes of a file: lseek(2) with SEEK_DATA and SEEK_HOLE. This moves the file offset, which does no
 * harm, because our reads and writes use explicit offsets.
 */
import { checked, declare, SystemCallError } from './libc.ts';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

const lseek = declare<[fd: number, offset: number, whence: number]>('lseek', 'int64', [
  'int',
  'int64',
  'int',
]);

/**
 * Returns the first byte at or after `offset` that is data; undefined if there is only a hole, or if `offset` is past
 * the end. A filesystem without support for holes returns `offset`.
 */
export function nextData(fd: number, offset: number): number | undefined {
  try {
    return checked(lseek, [fd, offset, SEEK_DATA], 'lseek SEEK_DATA');
  } catch (error) {
    if (error instanceof SystemCallError && error.code === 'ENXIO') return undefined;
    throw error;
  }
}

/** Returns the first byte at or after `offset` that is a hole. The end of the file is a hole. ENXIO past the end. */
export function nextHole(fd: number, offset: number): number {
  return checked(lseek, [fd, offset, SEEK_HOLE], 'lseek SEEK_HOLE');
}
