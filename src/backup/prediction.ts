/**
 * How long the freeze will be without a tracker: all used blocks are read and compared inside it. Checked
 * before anything is sent, and again, with the speed seen by then, before freezing.
 */
import { formatBytes } from '../base/bytes.ts';
import { AgentError } from '../base/errors.ts';
import { type JobUnit, isLive } from './unit.ts';

/** Freezing and thawing: what is spent besides reading the used map and the blocks, milliseconds. */
const fixedMs = 25;

export interface Prediction {
  readonly ms: number;
  readonly bytes: number;
  /** Bytes per second of all devices together. */
  readonly rate: number;
}

/**
 * Devices are read side by side, but they share the processors: their times are added. `mapMs`: how long the last reading
 * of the used maps took, which for a device that is tracked is of what had changed of it.
 */
export function predictFreeze(
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

/** Throws FREEZE_TOO_LONG with the numbers and the ways out. */
export function checkPrediction(
  prediction: Prediction,
  units: readonly JobUnit[],
  maxFreezeMs: number,
): void {
  if (prediction.ms <= maxFreezeMs) return;
  const names = units
    .filter(isLive)
    .map((unit) => unit.pair.device.path)
    .join(', ');
  throw new AgentError(
    'FREEZE_TOO_LONG',
    `without change tracking ${names} would be frozen for about ${formatMs(prediction.ms)} ` +
      `(${formatBytes(prediction.bytes)} to compare at ${formatBytes(Math.round(prediction.rate))}/s), ` +
      `allowed are ${formatMs(maxFreezeMs)}`,
    {
      hint:
        `allow it with --max-freeze ${Math.ceil((prediction.ms * 1.25) / 1000)}s, or unmount the filesystem or ` +
        `remount it read-only for the time of the backup${snapshotHint(units)}`,
    },
  );
}

/** What a snapshot would need, where the device is a logical volume and none could be taken. */
function snapshotHint(units: readonly JobUnit[]): string {
  const reasons = units.flatMap(({ noSnapshot }) => (noSnapshot === '' ? [] : [noSnapshot]));
  return reasons.length === 0
    ? ', or back up an LVM snapshot of it'
    : `; no LVM snapshot was taken: ${[...new Set(reasons)].join('; ')}`;
}

/** The same for devices whose tracker tells what there is to read. */
export function checkTrackedPrediction(
  prediction: Prediction,
  units: readonly JobUnit[],
  maxFreezeMs: number,
): void {
  if (prediction.ms <= maxFreezeMs) return;
  const names = units.map((unit) => unit.pair.device.path).join(', ');
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
