/** Finding what the target of a device lacks: by the tracker if there is one, otherwise by comparing with fingerprints. */
import type { DeviceBackup } from '../device-backup.ts';
import { isSynced } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';

/** Returns false if nothing tracks the device, or no longer. A loss is reported, and from then on the device is compared. */
export async function findByTracker(device: DeviceBackup, job: JobContext): Promise<boolean> {
  if (!device.ledger.isTracked) return false;
  // The allocation map is older than what is taken now. Where it cannot be read anew, what was written counts as used.
  return taking(device, job, () => device.ledger.findByTracker({ countAsUsed: !isSynced(device) }));
}

/** Takes the dirty map inside a freeze, if a tracker has one. */
export async function takeInFreeze(device: DeviceBackup, job: JobContext): Promise<void> {
  if (device.ledger.isTracked) await taking(device, job, () => device.ledger.takeInFreeze());
}

async function taking(
  { ledger, pool, pair, status }: DeviceBackup,
  { reporter }: JobContext,
  take: () => ReturnType<DeviceBackup['ledger']['takeInFreeze']>,
): Promise<boolean> {
  try {
    pool.forgetStashed(await take());
    return true;
  } catch (error) {
    if (!isEpochEnd(error)) throw error;
    ledger.trackingLost();
    status.tracker = 'none';
    const { path } = pair.device;
    reporter.warn(
      'TRACKING_LOST',
      `tracking of ${path} ended during the job (${error.message}); it was compared instead`,
      path,
    );
    return false;
  }
}

function isEpochEnd(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && error.code === 'EPOCH_ENDED';
}

/** Reads all that is in use, and makes what differs from its fingerprint pending. Returns how many bytes that is. */
export async function findByComparing({ pool, ledger }: DeviceBackup): Promise<number> {
  return ledger.findByComparing(await pool.compare(ledger.used));
}

/**
 * Reads the target, and makes the units that differ from their fingerprints pending. For fingerprints that may be older
 * than the target: a block that is as it was then would be taken for one that the target holds.
 */
export async function findByReadingTarget({ pool, ledger }: DeviceBackup): Promise<void> {
  let before;
  do {
    before = pool.reconnects;
    const { found } = await pool.verify(ledger.known(ledger.used));
    ledger.foundAtTarget(found);
    // A server that was lost meanwhile may have come back with another image.
  } while (pool.reconnects > before);
  pool.expect(ledger.expectation());
}

/** Sends what is missing and in use. When it returns, that is confirmed and no longer pending. */
export async function sendMissing({ pool, ledger }: DeviceBackup): Promise<void> {
  // The target gets whole blocks of its own, as they were read: all of that is on it then.
  const blocks = ledger.toSend();
  if (blocks.isEmpty()) return;
  await pool.copy(blocks);
  await ledger.sent({ blocks, resent: pool.takeResent() });
}
