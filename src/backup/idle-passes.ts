/**
 * The instant of a device that is not frozen: read-only mounted, unmounted, or held by a program that cannot be frozen.
 * An exclusive open keeps mounts away, but not a program that writes to the device itself, and a read-only filesystem
 * may be writable for a while. So the image is of one instant only if nothing was written from the begin of the last
 * pass to its end. Passes are repeated until that is proven:
 *
 * - by the tracker, if it has no mark in what is in use;
 * - without one, by the kernel's counters of writes, or by a comparing pass that finds no difference: all that it read
 *   was the same as at the pass before, so it was the same in the moment between them.
 */
import { lookAtWrites, nothingWritten, writtenBehind } from '../devices/write-watch.ts';
import { findByComparing, findByTracker } from './finding.ts';
import { flushDevice, remapIdle } from './mapping.ts';
import type { JobReporter } from './job-reporter.ts';
import { sendMissing } from './send-missing.ts';
import { type JobUnit, missing } from './unit.ts';

/** Passes beyond those that the job's options allow, before the device counts as written to all the time. */
const furtherPasses = 3;

/**
 * True if the image is of one instant. False if the device is still written to when `status.pass` has reached `passes`,
 * or if nothing can tell.
 */
export async function settleIdle(
  unit: JobUnit,
  passes: number,
  report: JobReporter,
  signal: AbortSignal,
): Promise<boolean> {
  for (;;) {
    signal.throwIfAborted();
    await flushDevice(unit);
    const look = await lookAtWrites(unit.pair.device);
    const before = unit.look ?? look;
    const tracked = await findByTracker(unit, report, true);
    const behind = writtenBehind(before, look);
    const quiet = tracked ? !behind : nothingWritten(unit.pair.device, before, look) === true;
    if (quiet && hasAll(unit)) return true;
    const compares = !tracked || behind;
    if (unit.status.pass >= passes || (compares && !unit.comparable)) return false;
    unit.status.pass++;
    unit.look = look;
    await remapIdle(unit);
    if (compares) await findByComparing(unit);
    if (!tracked && hasAll(unit)) return true;
    await sendMissing(unit);
  }
}

function hasAll(unit: JobUnit): boolean {
  return unit.mapped && missing(unit).isEmpty();
}

/** Settles what passes before the freeze of other devices left, and warns if that is not possible. */
export async function proveInstant(unit: JobUnit, report: JobReporter, signal: AbortSignal): Promise<void> {
  if (await settleIdle(unit, unit.status.pass + furtherPasses, report, signal)) return;
  const { path } = unit.pair.device;
  report.warn(
    'NOT_ONE_INSTANT',
    `${path} was written to while it was read, in each of ${unit.status.pass} passes; its image may hold blocks of ` +
      'different moments',
    path,
  );
}

/** True unless the counters prove that nothing was written since the pass began. */
export async function wasWritten({ pair, look }: JobUnit): Promise<boolean> {
  return look === undefined || nothingWritten(pair.device, look, await lookAtWrites(pair.device)) !== true;
}
