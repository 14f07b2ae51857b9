/** Makes and removes the trace of a disk's queue without ever touching a trace of another program. */
import { AgentError, errnoCode } from '../../base/errors.ts';
import { setUpTrace, startTrace, tearDownTrace } from '../../linux/blktrace.ts';
import { masks } from './follower.ts';
import type { TraceRecords } from './leftover.ts';
import type { TracedQueue } from './queue.ts';
import { traceFolder } from './relay-files.ts';

/** The most bytes of a sub-buffer. */
const largestBuffer = 64 * 1024;

export interface Trace {
  readonly folder: string;
  /** Bytes of the kernel's buffers for each processor. */
  readonly capacity: number;
  /** True if an earlier daemon traced this disk; its maps ended with it. */
  readonly earlier: boolean;
}

export interface TraceOptions {
  /** `MAJOR:MINOR` of the whole disk. */
  readonly disk: string;
  readonly debugfs: string;
  readonly records: TraceRecords;
  /** Bytes for each processor, at least 8 KiB. */
  readonly capacity: number;
}

/** Sets up and starts a trace. Throws NOT_SUPPORTED or NO_PERMISSION with what would help. */
export async function beginTrace(queue: TracedQueue, options: TraceOptions): Promise<Trace> {
  const { disk, debugfs, records, capacity } = options;
  const earlier = await records.earlier(disk, traceFolder(debugfs, underscored(queue), queue.name));
  // Only in this case: the files are the same that we made, and no process reads them any more.
  if (earlier === 'ours') await tearDownTrace(queue.path).catch(ignore('EINVAL'));
  const bufferSize = Math.min(largestBuffer, capacity / 2);
  const setup = { mask: masks[queue.following], bufferSize, buffers: Math.floor(capacity / bufferSize) };
  let folder: string | undefined;
  try {
    const name = await setUpTrace(queue.path, setup);
    folder = traceFolder(debugfs, name, queue.name);
    if (folder === undefined)
      throw new AgentError(
        'NOT_SUPPORTED',
        `the kernel made no files in debugfs for the trace of ${queue.path}`,
      );
    await records.note(disk, folder);
    await startTrace(queue.path);
  } catch (thrown) {
    if (folder !== undefined) await endTrace(queue, disk, folder, records);
    throw explain(thrown, queue);
  }
  return { folder, capacity: setup.buffers * bufferSize, earlier: earlier !== undefined };
}

/** Tears down the trace if it is still the one that this process made. */
export async function endTrace(
  queue: { readonly path: string },
  disk: string,
  folder: string,
  records: TraceRecords,
): Promise<void> {
  if (await records.isMine(disk, folder))
    await tearDownTrace(queue.path).catch(ignore('EINVAL', 'ENOENT', 'ENXIO'));
  await records.ended(disk);
}

function explain(thrown: unknown, { path, name }: TracedQueue): unknown {
  const code = errnoCode(thrown);
  const cause = { cause: thrown };
  if (code === 'EBUSY')
    return new AgentError(
      'NOT_SUPPORTED',
      `another process already traces ${path}, and a device has at most one trace`,
      {
        hint: `find out which process it is; if a killed program left the trace, run "blktrace -k ${path}"`,
        ...cause,
      },
    );
  if (code === 'EPERM' || code === 'EACCES')
    return new AgentError('NO_PERMISSION', `tracing ${path} is not allowed (${code})`, {
      hint: 'dattod needs CAP_SYS_ADMIN, and a kernel without lockdown',
      ...cause,
    });
  if (code === 'ENOTTY' || code === 'EINVAL' || code === 'ENOENT')
    return new AgentError('NOT_SUPPORTED', `this kernel cannot trace ${path} by blktrace (${code})`, {
      hint: 'blktrace needs CONFIG_BLK_DEV_IO_TRACE and debugfs',
      ...cause,
    });
  if (code === 'EIO')
    return new AgentError('NOT_SUPPORTED', `the kernel made no buffers for the trace of ${path}`, {
      hint: `it is short of memory, or still holds files of an earlier trace in debugfs/block/${name}, until a reboot`,
      ...cause,
    });
  if (code === 'ENOMEM')
    return new AgentError('NOT_SUPPORTED', `the kernel has no memory for the trace of ${path}`, cause);
  return thrown;
}

function underscored({ path }: TracedQueue): string {
  return path.replace('/dev/', '').replaceAll('/', '_');
}

function ignore(...codes: readonly string[]): (thrown: unknown) => void {
  return (thrown) => {
    if (!codes.includes(errnoCode(thrown) ?? '')) throw thrown;
  };
}
