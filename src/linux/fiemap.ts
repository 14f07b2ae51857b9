/** Finds the place of a file on its device: FS_IOC_FIEMAP (linux/fiemap.h, Documentation/filesystems/fiemap.rst). */
import { checked, declare } from './libc.ts';

// _IOWR('f', 11, struct fiemap)
const FS_IOC_FIEMAP = 0xc020660b;
const FIEMAP_FLAG_SYNC = 1;
const FIEMAP_EXTENT_UNKNOWN = 2;
const headSize = 32;
const extentSize = 56;
/** Enough for the small files that this is used for. A file with more extents is an error. */
const mostExtents = 64;

const ioctl = declare<[fd: number, request: number, argument: Uint8Array]>('ioctl', 'int', [
  'int',
  'uint64',
  'void *',
]);

/**
 * Returns the byte ranges of the device that hold an open file. Its dirty data is written first. Throws SystemCallError
 * if the filesystem does not support this, RangeError if the file has too many extents or one without a place.
 */
export function fileExtents(fd: number): { readonly offset: number; readonly length: number }[] {
  const map = Buffer.alloc(headSize + mostExtents * extentSize);
  map.writeBigUInt64LE(0xffffffffffffffffn, 8);
  map.writeUInt32LE(FIEMAP_FLAG_SYNC, 16);
  map.writeUInt32LE(mostExtents, 24);
  checked(ioctl, [fd, FS_IOC_FIEMAP, map], 'ioctl FS_IOC_FIEMAP');
  const count = map.readUInt32LE(20);
  if (count >= mostExtents) throw new RangeError(`the file is in ${count} pieces or more`);
  return Array.from({ length: count }, (_, index) => {
    const at = headSize + index * extentSize;
    if ((map.readUInt32LE(at + 40) & FIEMAP_EXTENT_UNKNOWN) !== 0)
      throw new RangeError('a piece of the file has no place on the device');
    return {
      offset: Number(map.readBigUInt64LE(at + 8)),
      length: Number(map.readBigUInt64LE(at + 16)),
    };
  });
}
