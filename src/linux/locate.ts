/** Finds the mount of a path and the file of a loop device. The kernel is asked, as names may be outdated. */
import { constants } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { boundedCall } from '../base/bounded-call.ts';
import { checkedAsync, declare } from './libc.ts';
import { filePath } from '../base/file-name.ts';
import { splitDeviceNumber } from './device-uses.ts';

// include/uapi/asm-generic/fcntl.h; Node has no name for it.
const O_PATH = 0o10000000;
// include/uapi/linux/loop.h; struct loop_info64 begins with the device and inode numbers of the file.
const LOOP_GET_STATUS64 = 0x4c05;
const loopInfoBytes = 232;

const ioctl = declare<[fd: number, request: number, argument: Uint8Array]>('ioctl', 'int', [
  'int',
  'uint64',
  'void *',
]);

/**
 * Returns the mountinfo ID of the mount that the path is on, after following links. Throws NO_ANSWER if the filesystem
 * hangs, and the errors of opening the path.
 */
export function mountIdOf(path: string): Promise<number | undefined> {
  return boundedCall('finding its mount', path, () => readMountId(path));
}

async function readMountId(path: string): Promise<number | undefined> {
  const handle = await open(filePath(path), constants.O_RDONLY | O_PATH);
  try {
    const info = await readFile(`/proc/self/fdinfo/${handle.fd}`, 'utf8');
    const id = /^mnt_id:\s*(\d+)$/m.exec(info)?.[1];
    return id === undefined ? undefined : Number(id);
  } finally {
    await handle.close();
  }
}

export interface FileIdentity {
  /** Device number of the filesystem that the file is on. */
  readonly major: number;
  readonly minor: number;
  readonly inode: number;
}

/**
 * Returns the identity of a loop device's file, also if the file was renamed or deleted. Throws ENXIO if there is no
 * file, and NO_ANSWER if the file's filesystem hangs, because the kernel asks that filesystem.
 */
export function loopBackingOf(devicePath: string): Promise<FileIdentity> {
  return boundedCall('LOOP_GET_STATUS64', devicePath, () => readLoopBacking(devicePath));
}

async function readLoopBacking(devicePath: string): Promise<FileIdentity> {
  const handle = await open(devicePath, constants.O_RDONLY);
  try {
    const info = Buffer.alloc(loopInfoBytes);
    await checkedAsync(ioctl, [handle.fd, LOOP_GET_STATUS64, info], 'ioctl LOOP_GET_STATUS64', devicePath);
    const { major, minor } = splitDeviceNumber(Number(info.readBigUInt64LE(0)));
    return { major, minor, inode: Number(info.readBigUInt64LE(8)) };
  } finally {
    await handle.close();
  }
}
