/**
 * A backup from the first read to the last flush, for all devices of a job. It consists of passes (copy-passes.ts), one
 * freeze for all devices (frozen-pass.ts), and the proof at the end (verify-target.ts).
 */
import type { DeviceBackup } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import type { ReadErrorRecord } from '../../api/job-status.ts';
import { publishPoints } from './publish-points.ts';
import { frozenPass } from './frozen-pass.ts';
import { refuseNewWriters } from './recheck-mounts.ts';
import { releaseFreed } from './release-freed.ts';
import { together } from './together.ts';
import { verifyTarget } from './verify-target.ts';

export async function runBackup(devices: readonly DeviceBackup[], job: JobContext): Promise<void> {
  const { reporter } = job;
  reporter.phase('mapping');
  for (const { plan, pair } of devices)
    if (plan.reason !== null)
      reporter.warn('FELL_BACK', `${plan.kind} instead: ${plan.reason}`, pair.device.path);
  await together(devices, (device) => device.instant.map(device, job));

  reporter.phase('copying');
  await together(devices, (device) => device.instant.firstPass(device, job));
  await together(devices, (device) => device.instant.furtherPasses(device, job));

  const live = devices.filter(({ isLive }) => isLive);
  if (live.length > 0) await frozenPass(live, job);
  let instant = new Date();
  await together(devices, (device) => device.instant.afterFreeze(device, job));

  reporter.phase('finishing');
  await refuseNewWriters(devices);
  await together(devices, (device) => device.instant.prove(device, job));
  if (live.length === 0) instant = new Date();
  for (const device of devices) settleStatus(device);
  await together(devices, (device) => releaseFreed(device, job));
  await together(devices, seal);

  reporter.phase('verifying');
  await together(devices, (device) => verifyTarget(device, job));
  const bases = await publishPoints(devices, job, instant);
  // Only now do the targets hold images of one instant.
  for (const device of devices)
    await device.ledger.complete({
      uuid: job.uuid,
      tracker: device.status.tracker,
      base: bases.get(device),
    });
}

/** Sets the fields of the status that are known once all blocks are sent and flushed. */
function settleStatus({ status, pool }: DeviceBackup): void {
  status.read_errors = joined(pool.readErrors);
  status.bytes_unsynced = 0;
  status.freeze_ms ??= 0;
}

/** Makes the data that was sent to a vault durable. No recovery point names it yet. */
async function seal({ pool, status }: DeviceBackup): Promise<void> {
  const sealed = await pool.seal();
  if (sealed !== undefined) status.bytes_stored = sealed.stored;
}

/** Returns the records sorted. Records of the same bad sectors, from several passes, are joined. */
function joined(records: readonly ReadErrorRecord[]): ReadErrorRecord[] {
  const result: { offset: number; length: number }[] = [];
  for (const record of [...records].sort((a, b) => a.offset - b.offset)) {
    const last = result.at(-1);
    if (last !== undefined && record.offset <= last.offset + last.length)
      last.length = Math.max(last.length, record.offset + record.length - last.offset);
    else result.push({ ...record });
  }
  return result;
}
