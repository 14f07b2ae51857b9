/**
 * The copying passes of one live device before the freeze. Each pass finds the blocks that the target lacks and sends
 * them, while programs write to the device.
 */
import { MiB } from '../../base/bytes.ts';
import { wholeUnits } from '../../tracking/bitmap-units.ts';
import { type DeviceBackup, roomNeeded, toRead } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import { findByComparing, findByReadingTarget, findByTracker, sendMissing } from './find-changes.ts';
import { readMapAgain, refreshMap } from './read-map.ts';
import { syncMounts } from './sync-device.ts';

/** Passes continue until the reading inside the freeze should take no longer than this, in milliseconds. */
const freezeAimMs = 25;

/**
 * Rounds right before the freeze, at most; bytes to read that need no round; and the share of the previous round above
 * which another round helps little.
 */
const lastRounds = 6;
const littleLeft = MiB;
const shrinkingFast = 0.8;

/** The share of the previous pass. If more than that is left, another pass helps little. */
const stillShrinking = 0.9;

/** Bytes. If the first pass sent less, it does not show how fast the device is written. */
const littleToTell = 32 * MiB;

/** Bytes. If no more differs at the freeze, another comparing pass is not worth it. */
const smallDifference = 8 * MiB;

/** Finds the blocks that the first pass of any device has to send, by the kind of backup. */
export async function findFirst(device: DeviceBackup, job: JobContext): Promise<void> {
  const { kind, readTarget } = device.plan;
  device.status.pass = 1;
  if (readTarget === true) await findByReadingTarget(device);
  if (kind === 'differential') {
    await findByComparing(device);
    return;
  }
  // This pass reads the blocks that were written until now, so the next pass need not read them again.
  const isTracked = await findByTracker(device, job);
  if (kind === 'incremental' && !isTracked) await findByComparing(device);
}

/**
 * Repeats passes while each leaves less than the one before, until the rest can be read within the aim. Some devices
 * are written as fast as passes can send, because the target is slow or because the passes are held back for other
 * work. The rounds before the freeze then use neither the target nor a limit on reading. No writer is slowed down.
 */
export async function furtherPasses(device: DeviceBackup, job: JobContext): Promise<void> {
  const { status } = device;
  let before = Math.max(device.pool.counters().done, littleToTell);
  while (status.pass < job.options.maxPasses) {
    job.signal.throwIfAborted();
    status.pass++;
    await readMapAgain(device, job);
    const isTracked = await findByTracker(device, job);
    const left = isTracked ? readingBytes(device) : await findByComparing(device);
    status.bytes_unsynced = left;
    if (left === 0) return;
    if (isTracked && (await fitsAim(device, left))) return;
    await sendMissing(device);
    if (!isTracked && (left > before / 2 || left <= smallDifference)) return;
    if (left > before * stillShrinking) return;
    before = left;
  }
}

/**
 * Runs when everything is ready for the freeze. Reads the blocks that were written since the last pass into memory, in
 * rounds that each find less. A slow target does not matter, so the freeze finds little. If memory has no room, the
 * blocks go to the target. Also writes out the page cache, so that freezing does not wait for it.
 */
export async function lastRoundsBeforeFreeze(device: DeviceBackup, job: JobContext): Promise<void> {
  const { ledger, pool, status } = device;
  let before = Infinity;
  for (let round = 0; round < lastRounds && ledger.isTracked; round++) {
    await syncMounts(device);
    if (!(await findByTracker(device, job))) break;
    await refreshMap(device, job);
    const left = toRead(device).bytes();
    const missing = ledger.missing();
    status.bytes_unsynced = missing.bytes();
    if (left <= littleLeft || left > before * shrinkingFast) break;
    if (roomNeeded(device) > pool.roomLeft || !(await pool.stash(missing))) await sendAgain(device);
    before = left;
  }
  await syncMounts(device);
}

/** Sends all missing blocks to the target, after a freeze that found too many, or that would be too long. */
export async function anotherPass(device: DeviceBackup, job: JobContext): Promise<void> {
  device.status.pass++;
  await syncMounts(device);
  if (await findByTracker(device, job)) await sendAgain(device);
}

/** Drops the blocks in memory, and sends all missing blocks as they are on the device now. */
async function sendAgain(device: DeviceBackup): Promise<void> {
  await device.pool.dropSpool();
  await sendMissing(device);
}

/** Returns the bytes of the fingerprint units that a pass would have to read now. */
function readingBytes(device: DeviceBackup): number {
  let bytes = 0;
  for (const { length } of wholeUnits(toRead(device))) bytes += length;
  return bytes;
}

async function fitsAim({ pool, ledger }: DeviceBackup, bytes: number): Promise<boolean> {
  return (bytes / (await pool.speed.rate(ledger.used))) * 1000 <= freezeAimMs;
}
