/**
 * The ioctls of blktrace (include/uapi/linux/fs.h, include/uapi/linux/blktrace_api.h; numbers of x86-64 and arm64).
 * They act on the queue of a device, which has at most one trace. The descriptor may be closed afterwards. A trace
 * continues until it is removed, even if the process that made it has ended. Each function opens the device read-only
 * and runs on a thread of the pool. Errors are SystemCallErrors, or the errors of opening the device.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { errnoCode } from '../base/errors.ts';
import { checkedAsync, declare } from './libc.ts';

const SETUP = 0xc0481273;
const START = 0x1274;
const STOP = 0x1275;
const TEARDOWN = 0x1276;

const nameBytes = 32;
const setupBytes = 72;

const ioctl = declare<[fd: number, request: number, argument: Uint8Array | null]>('ioctl', 'int', [
  'int',
  'uint64',
  'void *',
]);

export interface TraceSetup {
  /** The categories to record (BLK_TC_…). */
  readonly mask: number;
  /** Bytes of a sub-buffer. `buffers` is the number of sub-buffers for each processor. */
  readonly bufferSize: number;
  readonly buffers: number;
}

/**
 * Makes a trace of the whole queue; nothing is recorded before `startTrace`. Returns the name of its folder in
 * debugfs/block. EBUSY: the queue already has a trace. ENOENT: the kernel made no folder in debugfs. ENOTTY: the kernel
 * has no blktrace.
 */
export async function setUpTrace(path: string, setup: TraceSetup): Promise<string> {
  const argument = Buffer.alloc(setupBytes);
  argument.writeUInt16LE(setup.mask, 32);
  argument.writeUInt32LE(setup.bufferSize, 36);
  argument.writeUInt32LE(setup.buffers, 40);
  // start_lba stays 0. Without a value, end_lba would be the current size of the device, also after it grew.
  argument.writeBigUInt64LE(0xffffffffffffffffn, 56);
  await call(path, SETUP, argument, 'BLKTRACESETUP');
  const name = argument.subarray(0, nameBytes);
  return name.toString('latin1', 0, name.indexOf(0));
}

/** Starts recording. EINVAL: the trace runs already, or there is no trace. */
export async function startTrace(path: string): Promise<void> {
  await call(path, START, null, 'BLKTRACESTART');
}

/** Stops recording. EINVAL: the trace does not run. Recorded data can still be read. */
export async function stopTrace(path: string): Promise<void> {
  await call(path, STOP, null, 'BLKTRACESTOP');
}

/**
 * Stops and removes the trace, also one that another process made. EINVAL: there is no trace. It is stopped first,
 * because Linux 5.10 (6.1 no longer) would lose a running trace and keep its files and memory until the next boot.
 */
export async function tearDownTrace(path: string): Promise<void> {
  await stopTrace(path).catch((thrown: unknown) => {
    if (errnoCode(thrown) !== 'EINVAL') throw thrown;
  });
  await call(path, TEARDOWN, null, 'BLKTRACETEARDOWN');
}

async function call(path: string, request: number, argument: Buffer | null, name: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    await checkedAsync(ioctl, [handle.fd, request, argument], `ioctl ${name}`, path);
  } finally {
    await handle.close();
  }
}
