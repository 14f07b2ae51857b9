/** posix_fadvise(2): hints to the page cache. */
import { declare, SystemCallError } from './libc.ts';

const WILLNEED = 3;

const fadvise = declare<[fd: number, offset: number, length: number, advice: number]>(
  'posix_fadvise',
  'int',
  ['int', 'int64', 'int64', 'int'],
);

/** Starts reading the range into the page cache and returns at once. Throws SystemCallError. */
export function willNeed(fd: number, offset: number, length: number): void {
  // posix_fadvise returns the error number and does not set errno.
  const errno = fadvise(fd, offset, length, WILLNEED);
  if (errno !== 0) throw new SystemCallError('posix_fadvise', errno);
}
