/**
 * The copying passes of one live device before the freeze: each finds what the target lacks, and sends it, while the
 * device is written to.
 */
import { MiB } from '../../base/bytes.ts';
import { wholeUnits } from '../../tracking/bitmap-units.ts';
import { type DeviceBackup, roomNeeded, toRead } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import { findByComparing, findByReadingTarget, findByTracker, sendMissing } from './find-changes.ts';
import { readMapAgain, refreshMap } from './read-map.ts';
import { syncMounts } from './sync-device.ts';

/** The reading inside the freeze that passes aim at, in milliseconds. */
const freezeAimMs = 25;

/** Rounds right before the freeze, bytes to read that are not worth one, and how much of the last one may be left. */
const lastRounds = 6;
const littleLeft = MiB;
const shrinkingFast = 0.8;

/** Share of what the pass before had. If more than that is left, another pass helps little. */
const stillShrinking = 0.9;

/** Bytes. A first pass that sent less says nothing of how fast the device is written. */
const littleToTell = 32 * MiB;

/** Bytes that may differ at the freeze without another comparing pass being worth it. */
const smallDifference = 8 * MiB;

/** Finds what the first pass of any device has to send, by the kind of backup. */
export async function findFirst(device: DeviceBackup, job: JobContext): Promise<void> {
  const { kind, readTarget } = device.plan;
  device.status.pass = 1;
  if (readTarget === true) await findByReadingTarget(device);
  if (kind === 'differential') {
    await findByComparing(device);
    return;
  }
  // What was written until now is read by this pass, and need not be read again by the next one.
  const isTracked = await findByTracker(device, job);
  if (kind === 'incremental' && !isTracked) await findByComparing(device);
}

/**
 * Passes go on while each leaves less than the one before, until what is left is read within the aim. If a device is
 * written as fast as the target takes it, or as passes take it that are held back for other work, the rounds before the
 * freeze do without the target and without holding back; nothing is slowed down.
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
 * Runs when everything is ready for the freeze: what has been written since the last pass is read into memory, in rounds
 * that each find less, however slow the target is, so that the freeze finds little. If memory has no room, it goes to the
 * target. And what is only in the page cache is written, so that freezing does not wait for it.
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

/** After a freeze that found too much, or one that would be too long: all that is missing goes to the target. */
export async function anotherPass(device: DeviceBackup, job: JobContext): Promise<void> {
  device.status.pass++;
  await syncMounts(device);
  if (await findByTracker(device, job)) await sendAgain(device);
}

/** What was in memory goes to the target as it is on the device now. */
async function sendAgain(device: DeviceBackup): Promise<void> {
  await device.pool.dropSpool();
  await sendMissing(device);
}

/** Bytes of the fingerprint units that a pass would have to read now. */
function readingBytes(device: DeviceBackup): number {
  let bytes = 0;
  for (const { length } of wholeUnits(toRead(device))) bytes += length;
  return bytes;
}

async function fitsAim({ pool, ledger }: DeviceBackup, bytes: number): Promise<boolean> {
  return (bytes / (await pool.readingRate(ledger.used))) * 1000 <= freezeAimMs;
}
