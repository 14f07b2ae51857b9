/**
 * The instant of a device whose filesystems are frozen. Passes copy it while programs write to it. The last pass runs
 * inside the freeze, and keeps the blocks that the target then lacks in memory.
 */
import { refuseChanged } from '../../devices/attachment.ts';
import { lookAtWrites, nothingWritten } from '../../devices/write-watch.ts';
import type { DeviceBackup, FrozenResult, Instant } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import { beginLedger } from './begin-ledger.ts';
import { findFirst, furtherPasses, lastRoundsBeforeFreeze } from './copy-passes.ts';
import { sendMissing, takeInFreeze } from './find-changes.ts';
import { acceptMap, readFirstMap, readMap } from './read-map.ts';

export class FrozenInstant implements Instant {
  readonly kind = 'frozen';
  readonly freezesItself = false;

  async map(device: DeviceBackup, job: JobContext): Promise<void> {
    await readFirstMap(device, job);
    await beginLedger(device);
  }

  async firstPass(device: DeviceBackup, job: JobContext): Promise<void> {
    await findFirst(device, job);
    await sendMissing(device);
  }

  furtherPasses(device: DeviceBackup, job: JobContext): Promise<void> {
    return furtherPasses(device, job);
  }

  beforeFreeze(device: DeviceBackup, job: JobContext): Promise<void> {
    return lastRoundsBeforeFreeze(device, job);
  }

  /** Invariant 1: take, then read. */
  async inFreeze(
    device: DeviceBackup,
    job: JobContext,
    options: { readonly mayOverflow: boolean },
  ): Promise<FrozenResult> {
    const { pool, ledger, pair } = device;
    device.status.pass++;
    const before = device.isWatched ? await lookAtWrites(pair.device) : undefined;
    const isResendable = !pool.hasUnconfirmed;
    await takeInFreeze(device, job);
    acceptMap(device, await readMap(device, job, 'frozen'));
    const missing = ledger.missing();
    const { kept, overflow } = ledger.isTracked
      ? { kept: missing, ...(await pool.freeze(missing, options)) }
      : await pool.freezeComparing(missing, ledger.used, options);
    ledger.keptInFreeze(kept);
    const isWritten =
      before !== undefined && nothingWritten(pair.device, before, await lookAtWrites(pair.device)) === false;
    refuseChanged(pair.device, device.attachment);
    return { kept, overflow, isResendable: isResendable && overflow === 0, isWritten };
  }

  afterFreeze(): Promise<void> {
    return Promise.resolve();
  }

  prove(): Promise<void> {
    return Promise.resolve();
  }
}
