/**
 * Where a file has data and where holes: lseek(2) with SEEK_DATA and SEEK_HOLE. Node reads and writes at
 * explicit offsets, so that the moved file offset hurts nobody.
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
 * First byte at or after `offset` that is data; undefined where only a hole is left (or `offset` lies past the
 * end). A filesystem without holes answers `offset`.
 */
export function nextData(fd: number, offset: number): number | undefined {
  try {
    return checked(lseek, [fd, offset, SEEK_DATA], 'lseek SEEK_DATA');
  } catch (error) {
    if (error instanceof SystemCallError && error.code === 'ENXIO') return undefined;
    throw error;
  }
}

/** First byte at or after `offset` that is a hole; the end of the file counts as one. ENXIO past the end. */
export function nextHole(fd: number, offset: number): number {
  return checked(lseek, [fd, offset, SEEK_HOLE], 'lseek SEEK_HOLE');
}
