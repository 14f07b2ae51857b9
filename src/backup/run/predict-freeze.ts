/**
 * Predicts how long the freeze will be. Without a tracker, all used blocks are read and compared inside it. The
 * prediction is checked before anything is sent. It is checked again before the freeze, with the speed measured by
 * then.
 */
import { formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { type DeviceBackup, toRead } from '../device-backup.ts';

/** Milliseconds for freezing and thawing, in addition to reading the allocation map and the blocks. */
const fixedMs = 25;

interface Prediction {
  readonly ms: number;
  readonly bytes: number;
  /** Bytes per second of all devices together. */
  readonly rate: number;
}

/**
 * Devices are read in parallel, but they share the processors, so their times are added. `mapMs`: how long the last
 * reading of the allocation maps took. For a tracked device, that reading covers only the changed part.
 */
function predictFreeze(
  devices: readonly { readonly bytes: number; readonly rate: number }[],
  mapMs: number,
): Prediction {
  const bytes = devices.reduce((sum, device) => sum + device.bytes, 0);
  const seconds = devices.reduce(
    (sum, device) => sum + (device.bytes > 0 ? device.bytes / device.rate : 0),
    0,
  );
  return { ms: fixedMs + mapMs + seconds * 1000, bytes, rate: seconds > 0 ? bytes / seconds : Infinity };
}

/** Throws FREEZE_TOO_LONG if the freeze of these devices would be longer than is allowed. */
export async function refuseLongFreeze(devices: readonly DeviceBackup[], maxFreezeMs: number): Promise<void> {
  if (devices.length === 0) return;
  const tracked = devices.filter(({ ledger }) => ledger.isTracked);
  const untracked = devices.filter(({ ledger }) => !ledger.isTracked);
  const costs = [];
  for (const { pool, ledger } of untracked)
    costs.push({ bytes: ledger.used.bytes(), rate: await pool.speed.measure(ledger.used) });
  // The rounds that have shown this speed ran in parallel, like the reads of the freeze, so the longest counts.
  const rounds = { bytes: 0, seconds: 0 };
  for (const device of tracked) {
    const set = toRead(device);
    rounds.bytes += set.bytes();
    rounds.seconds = Math.max(rounds.seconds, await device.pool.speed.secondsToKeep(set, device.ledger.used));
  }
  costs.push({ bytes: rounds.bytes, rate: rounds.bytes / rounds.seconds });
  const mapMs = devices.reduce((sum, { map }) => sum + map.lastMs, 0);
  const prediction = predictFreeze(costs, mapMs);
  if (untracked.length > 0) refuseUntracked(prediction, devices, maxFreezeMs);
  else refuseTracked(prediction, devices, maxFreezeMs);
}

/** Throws FREEZE_TOO_LONG with the numbers and the ways out. */
function refuseUntracked(
  prediction: Prediction,
  devices: readonly DeviceBackup[],
  maxFreezeMs: number,
): void {
  if (prediction.ms <= maxFreezeMs) return;
  const names = devices.map(({ pair }) => pair.device.path).join(', ');
  throw new AgentError(
    'FREEZE_TOO_LONG',
    `without change tracking ${names} would be frozen for about ${formatMs(prediction.ms)} ` +
      `(${formatBytes(prediction.bytes)} to compare at ${formatBytes(Math.round(prediction.rate))}/s), ` +
      `allowed are ${formatMs(maxFreezeMs)}`,
    {
      hint:
        `allow it with --max-freeze ${Math.ceil((prediction.ms * 1.25) / 1000)}s, or unmount the filesystem or ` +
        `remount it read-only for the time of the backup${snapshotHint(devices)}`,
    },
  );
}

/** Returns the reasons why no snapshot was taken, for the hint, or the advice to use one. */
function snapshotHint(devices: readonly DeviceBackup[]): string {
  const reasons = devices.flatMap(({ noSnapshot }) => (noSnapshot === '' ? [] : [noSnapshot]));
  return reasons.length === 0
    ? ', or back up an LVM snapshot of it'
    : `; no LVM snapshot was taken: ${[...new Set(reasons)].join('; ')}`;
}

/** Does the same for devices whose tracker reports the blocks to read. */
function refuseTracked(prediction: Prediction, devices: readonly DeviceBackup[], maxFreezeMs: number): void {
  if (prediction.ms <= maxFreezeMs) return;
  const names = devices.map(({ pair }) => pair.device.path).join(', ');
  throw new AgentError(
    'FREEZE_TOO_LONG',
    `${names} is written faster than the target takes it: ${formatBytes(prediction.bytes)} would have to be read in ` +
      `a freeze of about ${formatMs(prediction.ms)}, allowed are ${formatMs(maxFreezeMs)}`,
    {
      hint:
        `allow it with --max-freeze ${Math.ceil((prediction.ms * 1.25) / 1000)}s, give it more passes with ` +
        '--max-passes, or start it when less is written',
    },
  );
}

/** `20 ms`, `0.35 s`, `12.0 s`, `11 min`. */
export function formatMs(ms: number): string {
  if (ms < 100) return `${Math.ceil(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 120_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60_000)} min`;
}
