/**
 * The ioctls of blktrace (include/uapi/linux/fs.h, include/uapi/linux/blktrace_api.h; numbers of x86-64 and
 * arm64). They act on the queue of a device, which has one trace at most; the descriptor may be closed
 * afterwards, and a trace goes on until it is torn down, also without its maker. Each opens the device
 * read-only and runs on a thread of the pool. Errors are SystemCallErrors, or what opening gives.
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
  /** Categories whose records are wanted (BLK_TC_…). */
  readonly mask: number;
  /** Bytes of a sub-buffer, and how many of them each processor gets. */
  readonly bufferSize: number;
  readonly buffers: number;
}

/**
 * Makes a trace of the whole queue; nothing is recorded before `startTrace`. Returns the name of its folder in
 * debugfs/block. EBUSY: the queue has a trace already; ENOENT: the kernel made no folder in debugfs; ENOTTY:
 * the kernel has no blktrace.
 */
export async function setUpTrace(path: string, setup: TraceSetup): Promise<string> {
  const argument = Buffer.alloc(setupBytes);
  argument.writeUInt16LE(setup.mask, 32);
  argument.writeUInt32LE(setup.bufferSize, 36);
  argument.writeUInt32LE(setup.buffers, 40);
  // start_lba stays 0; end_lba would otherwise be the size that the device has now, also after it grew.
  argument.writeBigUInt64LE(0xffffffffffffffffn, 56);
  await call(path, SETUP, argument, 'BLKTRACESETUP');
  const name = argument.subarray(0, nameBytes);
  return name.toString('latin1', 0, name.indexOf(0));
}

/** EINVAL: it runs already, or there is none. */
export async function startTrace(path: string): Promise<void> {
  await call(path, START, null, 'BLKTRACESTART');
}

/** The opposite; EINVAL where it does not run. What was recorded can still be read. */
export async function stopTrace(path: string): Promise<void> {
  await call(path, STOP, null, 'BLKTRACESTOP');
}

/**
 * Stops and removes the trace, whoever made it. EINVAL: there is none. Stopped first, since Linux 5.10 (6.1 no
 * longer) forgets a running trace and keeps its files and memory until the machine restarts.
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
