/** The freeze after the passes, for all live devices at once, and the way of the blocks that it kept to the targets. */
import { formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { spoolFull } from '../copy/spool.ts';
import { type DeviceBackup, type FrozenResult, roomNeeded } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import { anotherPass } from './copy-passes.ts';
import { freezeWindow } from './freeze-window.ts';
import { formatMs, refuseLongFreeze } from './predict-freeze.ts';
import { warnOfMap } from './read-map.ts';
import { SnapshotInstant } from './snapshot-instant.ts';
import { together } from './together.ts';

/** Freezes of one job, at most. There is another pass before each but the first. */
const freezeTries = 3;

/**
 * Freezes all live devices at one instant, and sends the blocks that the targets lack then. Throws FREEZE_TOO_LONG if
 * the freeze would be too long or memory cannot hold its blocks, and FREEZE_TIMEOUT if it lasted too long.
 */
export async function frozenPass(live: readonly DeviceBackup[], job: JobContext): Promise<void> {
  const { options, environment, reporter } = job;
  const frozen = live.filter(({ instant }) => instant.kind === 'frozen');
  const isUntracked = (): boolean => frozen.some(({ ledger }) => !ledger.isTracked);
  // Every write from now on lengthens the freeze.
  for (const { pool } of frozen) pool.hurry();
  if (isUntracked()) await refuseLongFreeze(frozen, options.maxFreezeMs);
  let results: Map<DeviceBackup, FrozenResult> | undefined;
  for (let tries = 1; results === undefined; tries++) {
    const isLast = tries === freezeTries || frozen.length < live.length || isUntracked();
    try {
      results = await freezeOnce(live, frozen, job, { mayOverflow: isLast });
    } catch (error) {
      if (isLast || !isWorthAnotherTry(error)) throw error;
      environment.log.info({ tries, reason: error.message }, 'another pass before the next freeze');
      reporter.phase('copying');
      await together(frozen, (device) => anotherPass(device, job));
    }
  }
  reporter.phase('finishing');
  warnOfLength(frozen, job);
  await together(frozen, async (device) => {
    warnOfMap(device, job);
    const result = results.get(device);
    if (result !== undefined) await sendKept(device, result, job);
    if (result?.isWritten === true) warnOfWriter(device, job);
  });
}

/** True if the freeze would be too long, or was: fewer blocks may be written before the next one. */
function isWorthAnotherTry(error: unknown): error is AgentError {
  return error instanceof AgentError && (error.code === 'FREEZE_TOO_LONG' || error.code === 'FREEZE_TIMEOUT');
}

/** `frozen`: the live devices that are backed up without a snapshot. */
async function freezeOnce(
  live: readonly DeviceBackup[],
  frozen: readonly DeviceBackup[],
  job: JobContext,
  options: { readonly mayOverflow: boolean },
): Promise<Map<DeviceBackup, FrozenResult>> {
  const results = new Map<DeviceBackup, FrozenResult>();
  let full: AgentError | undefined;
  const start = performance.now();
  // After a timeout, the copying threads may still be reading.
  let looking: Promise<unknown> = Promise.resolve();
  const steps = {
    before: async () => {
      await together(live, (device) => device.instant.beforeFreeze(device, job));
      refuseWithoutRoom(frozen, options);
      await refuseLongFreeze(frozen, job.options.maxFreezeMs);
      for (const { instant } of live) if (instant instanceof SnapshotInstant) await instant.snapshot.record();
    },
    look: () => {
      const look = together(live, async (device) => {
        try {
          const result = await device.instant.inFreeze(device, job, options);
          if (result !== undefined) results.set(device, result);
        } catch (error) {
          // The other devices have not failed, so they continue. All get another try.
          if (!(error instanceof AgentError && error.code === 'FREEZE_TOO_LONG')) throw error;
          full = error;
        }
      });
      looking = look.catch(() => undefined);
      return look;
    },
  };
  await freezeWindow(live, job, steps).finally(() => looking);
  job.environment.log.info({ ms: performance.now() - start }, 'freeze window is over');
  if (full !== undefined) throw full;
  return results;
}

/** Throws FREEZE_TOO_LONG if memory clearly cannot hold the blocks that the freeze will find. */
function refuseWithoutRoom(
  devices: readonly DeviceBackup[],
  { mayOverflow }: { readonly mayOverflow: boolean },
): void {
  const bound = devices.filter(({ ledger, pool }) => ledger.isTracked && !(mayOverflow && pool.canOverflow));
  const bytes = bound.reduce((sum, device) => sum + roomNeeded(device), 0);
  const [first] = bound;
  if (first !== undefined && bytes > first.pool.roomLeft)
    throw spoolFull(first.pool.targetName, first.pool.roomLeft);
}

/** Warns if the freeze was so long that the next one may be too long. A long freeze without a tracker is expected. */
function warnOfLength(devices: readonly DeviceBackup[], { options, reporter }: JobContext): void {
  const tracked = devices.filter(({ ledger }) => ledger.isTracked);
  const ms = Math.max(0, ...tracked.map(({ status }) => status.freeze_ms ?? 0));
  if (ms <= options.maxFreezeMs / 2) return;
  const names = tracked.map(({ pair }) => pair.device.path).join(', ');
  reporter.warn(
    'CANNOT_CONVERGE',
    `so much was written to ${names} that the freeze lasted ${formatMs(ms)} of the ${formatMs(options.maxFreezeMs)} ` +
      'allowed; allow more with --max-freeze, or start the backup when less is written',
  );
}

function warnOfWriter({ pair }: DeviceBackup, { reporter }: JobContext): void {
  const { path } = pair.device;
  reporter.warn(
    'NOT_ONE_INSTANT',
    `${path} was written to although its mounted filesystems were frozen; the image may hold blocks of different moments`,
    path,
  );
}

async function sendKept(
  { ledger, pool, status, pair }: DeviceBackup,
  { kept, overflow, isResendable }: FrozenResult,
  { reporter }: JobContext,
): Promise<void> {
  status.bytes_unsynced = kept.bytes();
  await ledger.saveFound();
  if (overflow > 0)
    reporter.warn(
      'FREEZE_OVERFLOW',
      `${formatBytes(overflow)} more had changed than memory may hold, and went to the target while the filesystem ` +
        `was frozen (${formatMs(status.freeze_ms ?? 0)})`,
      pair.device.path,
    );
  const known = await pool.sendSpool(kept, isResendable);
  await ledger.sentFromFreeze(kept, known);
}
