/**
 * The instant of a device that is backed up from a temporary LVM snapshot. The snapshot is taken in the freeze window.
 * All blocks in use are read from it afterwards, and then it is removed at once. It is checked after the last read,
 * since the data of a snapshot that overflowed is never used.
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

  /** `freezesItself`: LVM freezes the only filesystem. Otherwise this job's freeze encloses that of LVM. */
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

  /** Takes the snapshot, inside the freeze window. If LVM freezes by itself, this is the whole freeze. */
  async inFreeze({ status }: DeviceBackup): Promise<undefined> {
    await this.snapshot.take();
    if (this.freezesItself) status.freeze_ms = Math.round(this.snapshot.suspendedMs * 10) / 10;
  }

  /**
   * Reads the map, sends the blocks that the target lacks, and removes the snapshot. Throws SNAPSHOT_OVERFLOW,
   * SNAPSHOT_FAILED.
   */
  async afterFreeze(device: DeviceBackup, job: JobContext): Promise<void> {
    job.reporter.phase('copying');
    await this.#copyWatched(device, job);
    // A thread that has the snapshot open would prevent its removal.
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
      // The snapshot has limited room for writes, and each write costs the volume a copy. So the reads are not held
      // back.
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
      // The cause of the error may be that the snapshot overflowed.
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
