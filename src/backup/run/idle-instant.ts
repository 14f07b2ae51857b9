/**
 * The instant of a device that is not frozen: mounted read-only, unmounted, or held by a program that cannot be frozen.
 * An exclusive open prevents mounts, but not programs that write to the device itself. And a read-only filesystem may
 * be writable for a while. So the image is of one instant only if nothing was written from the start of the last pass
 * to its end. Passes are repeated until that is proven:
 *
 * - by the tracker, if it reports no write to blocks in use;
 * - without a tracker, by the kernel's counters of writes, or by a comparing pass that finds no difference. Everything
 *   that it read was then the same as in the pass before, so it was the same in the moment between them.
 */
import { refuseChanged } from '../../devices/attachment.ts';
import { lookAtWrites, nothingWritten, type WriteLook, writtenBehind } from '../../devices/write-watch.ts';
import type { DeviceBackup, Instant } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import { beginLedger } from './begin-ledger.ts';
import { findFirst } from './copy-passes.ts';
import { findByComparing, findByTracker, sendMissing } from './find-changes.ts';
import { acceptMap, readIdleMap, warnOfMap } from './read-map.ts';
import { syncDevice } from './sync-device.ts';

/**
 * Passes beyond those that the job's options allow. If they do not suffice, the device counts as constantly written.
 */
const passesToProve = 3;

export class IdleInstant implements Instant {
  readonly kind = 'idle';
  readonly freezesItself = false;
  /** The device's counters of writes before the last pass read anything of it. */
  #look: WriteLook | undefined;

  async map(device: DeviceBackup, job: JobContext): Promise<void> {
    await syncDevice(device);
    this.#look = await lookAtWrites(device.pair.device);
    const map = await device.pool.readMap('idle');
    device.ledger.useMap(map.used);
    acceptMap(device, map);
    warnOfMap(device, job);
    await beginLedger(device);
  }

  async firstPass(device: DeviceBackup, job: JobContext): Promise<void> {
    await findFirst(device, job);
    // The tracker knows of writes during the reading of the map, and later takes do not report them again.
    if (device.ledger.isTracked && (await this.#wasWritten(device))) await readIdleMap(device);
    await sendMissing(device);
  }

  async furtherPasses(device: DeviceBackup, job: JobContext): Promise<void> {
    if (device.ledger.isTracked) await this.#settle(device, job, job.options.maxPasses);
  }

  beforeFreeze(): Promise<void> {
    return Promise.resolve();
  }

  inFreeze(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  afterFreeze(): Promise<void> {
    return Promise.resolve();
  }

  /**
   * Handles the blocks that passes left before the freeze of other devices. Warns if the image is not of one instant.
   */
  async prove(device: DeviceBackup, job: JobContext): Promise<void> {
    const { pair, status, attachment } = device;
    if (!(await this.#settle(device, job, status.pass + passesToProve))) {
      const { path } = pair.device;
      job.reporter.warn(
        'NOT_ONE_INSTANT',
        `${path} was written to while it was read, in each of ${status.pass} passes; its image may hold blocks of ` +
          'different moments',
        path,
      );
    }
    refuseChanged(pair.device, attachment);
  }

  /**
   * Returns true if the image is of one instant. Returns false if the device is still written to when `status.pass` has
   * reached `passes`, or if nothing can prove that it is not.
   */
  async #settle(device: DeviceBackup, job: JobContext, passes: number): Promise<boolean> {
    const { status, pair } = device;
    for (;;) {
      job.signal.throwIfAborted();
      await syncDevice(device);
      const look = await lookAtWrites(pair.device);
      const before = this.#look ?? look;
      const isTracked = await findByTracker(device, job);
      const isBehind = writtenBehind(before, look);
      const isQuiet = isTracked ? !isBehind : nothingWritten(pair.device, before, look) === true;
      if (isQuiet && hasAll(device)) return true;
      const compares = !isTracked || isBehind;
      if (status.pass >= passes || (compares && !device.isComparable)) return false;
      status.pass++;
      this.#look = look;
      await readIdleMap(device);
      if (compares) await findByComparing(device);
      if (!isTracked && hasAll(device)) return true;
      await sendMissing(device);
    }
  }

  /** True unless the counters prove that nothing was written since the pass began. */
  async #wasWritten({ pair }: DeviceBackup): Promise<boolean> {
    const before = this.#look;
    return (
      before === undefined || nothingWritten(pair.device, before, await lookAtWrites(pair.device)) !== true
    );
  }
}

function hasAll({ map, ledger }: DeviceBackup): boolean {
  return map.isCurrent && ledger.missing().isEmpty();
}
