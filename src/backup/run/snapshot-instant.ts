/**
 * The instant of a device that a temporary LVM snapshot gives: the snapshot is taken in the freeze window, all that is in
 * use is read from it afterwards, and it is removed as soon as it has been read. It is checked when the last byte was
 * read: what an overflowed snapshot returned is never believed.
 */
import { AgentError } from '../../base/errors.ts';
import type { LvmSnapshot } from '../../devices/lvm/snapshot.ts';
import type { DeviceBackup, Instant } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import { beginLedger } from './begin-ledger.ts';
import { findFirst } from './copy-passes.ts';
import { sendMissing } from './find-changes.ts';
import { acceptMap, warnOfMap } from './read-map.ts';
import { syncMounts } from './sync-device.ts';

export class SnapshotInstant implements Instant {
  readonly kind = 'snapshot';
  readonly snapshot: LvmSnapshot;
  readonly freezesItself: boolean;

  /** `freezesItself`: LVM freezes the one filesystem there is; otherwise our freeze is around its own. */
  constructor(snapshot: LvmSnapshot, { freezesItself }: { readonly freezesItself: boolean }) {
    this.snapshot = snapshot;
    this.freezesItself = freezesItself;
  }

  map(): Promise<void> {
    return Promise.resolve();
  }

  firstPass(): Promise<void> {
    return Promise.resolve();
  }

  furtherPasses(): Promise<void> {
    return Promise.resolve();
  }

  beforeFreeze(device: DeviceBackup): Promise<void> {
    return syncMounts(device);
  }

  /** Inside the freeze window, or as all of it if LVM freezes by itself. */
  async inFreeze({ status }: DeviceBackup): Promise<undefined> {
    await this.snapshot.take();
    if (this.freezesItself) status.freeze_ms = Math.round(this.snapshot.suspendedMs * 10) / 10;
  }

  /** Maps, sends what the target lacks, and removes the snapshot. Throws SNAPSHOT_OVERFLOW, SNAPSHOT_FAILED. */
  async afterFreeze(device: DeviceBackup, job: JobContext): Promise<void> {
    job.reporter.phase('copying');
    await this.#copyWatched(device, job);
    // Threads that have it open would keep it.
    await device.pool.useSource(device.pair.device.path);
    await this.#remove(device, job);
    warnOfMap(device, job);
  }

  async prove(): Promise<void> {
    // The snapshot was checked when all of it had been read.
  }

  async #copyWatched(device: DeviceBackup, job: JobContext): Promise<void> {
    const { snapshot } = this;
    const { pool } = device;
    const done = new AbortController();
    let failure: AgentError | undefined;
    let isOpened = false;
    try {
      const path = await snapshot.open();
      isOpened = true;
      await pool.useSource(path);
      // It has room for so many writes, and each costs the volume a copy.
      pool.hurry();
      this.#note(device);
      snapshot.watch((error) => {
        if (error instanceof AgentError) failure = error;
        pool.stop();
      }, done.signal);
      await copy(device, job);
      await snapshot.check();
    } catch (thrown) {
      if (failure !== undefined) throw failure;
      // What went wrong may be that it overflowed.
      if (isOpened && !isCancelled(thrown)) await snapshot.check();
      throw thrown;
    } finally {
      done.abort();
      this.#note(device);
    }
  }

  async #remove({ pair }: DeviceBackup, { reporter }: JobContext): Promise<void> {
    try {
      await this.snapshot.remove();
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      reporter.warn('SNAPSHOT_LEFT', error.message, pair.device.path);
    }
  }

  #note({ status }: DeviceBackup): void {
    const { used, size } = this.snapshot.usage;
    status.snapshot = { volume: this.snapshot.volume, kind: this.snapshot.room.kind, used, size };
  }
}

async function copy(device: DeviceBackup, job: JobContext): Promise<void> {
  const map = await device.pool.readMap('frozen');
  device.ledger.useMap(map.used);
  acceptMap(device, map);
  await beginLedger(device);
  await findFirst(device, job);
  await sendMissing(device);
}

function isCancelled(thrown: unknown): boolean {
  return thrown instanceof AgentError && thrown.code === 'CANCELLED';
}
