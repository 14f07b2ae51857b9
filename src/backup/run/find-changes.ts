/**
 * Finding the blocks that the target of a device lacks: by the tracker if there is one, else by comparing fingerprints.
 */
import type { DeviceBackup } from '../device-backup.ts';
import { isSynced } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';

/** Returns false if nothing tracks the device, or no longer. Reports a loss; the device is compared from then on. */
export async function findByTracker(device: DeviceBackup, job: JobContext): Promise<boolean> {
  const { ledger, pool } = device;
  if (!ledger.isTracked) return false;
  return unlessLost(device, job, () =>
    ledger.findByTracker({
      // The allocation map is older than this take. If it cannot be read again, all written blocks count as used.
      countAsUsed: !isSynced(device),
      taken: (dirty) => pool.forgetStashed(dirty),
    }),
  );
}

/** Takes the dirty map inside a freeze, if a tracker has one. */
export async function takeInFreeze(device: DeviceBackup, job: JobContext): Promise<void> {
  const { ledger, pool } = device;
  if (!ledger.isTracked) return;
  await unlessLost(device, job, async () => pool.forgetStashed(await ledger.takeInFreeze()));
}

async function unlessLost(
  { ledger, pair, status }: DeviceBackup,
  { reporter }: JobContext,
  take: () => Promise<void>,
): Promise<boolean> {
  try {
    await take();
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

/**
 * Reads all blocks in use, and makes units that differ from their fingerprints pending. Returns their size in bytes.
 */
export async function findByComparing({ pool, ledger }: DeviceBackup): Promise<number> {
  return ledger.findByComparing(await pool.compare(ledger.used));
}

/**
 * Reads the target, and makes the units that differ from their fingerprints pending. Needed if the fingerprints may be
 * older than the target: a block of the device that matches an old fingerprint may still differ from the target.
 */
export async function findByReadingTarget({ pool, ledger }: DeviceBackup): Promise<void> {
  let before;
  do {
    before = pool.reconnects;
    const { found } = await pool.verify(ledger.known(ledger.used));
    ledger.foundAtTarget(found);
    // A server whose connection was lost in the meantime may have come back with another image.
  } while (pool.reconnects > before);
  pool.expect(ledger.expectation());
}

/** Sends the blocks in use that the target lacks. When it returns, they are confirmed and no longer pending. */
export async function sendMissing({ pool, ledger }: DeviceBackup): Promise<void> {
  // The target gets whole blocks of its own size, as they were read. All of them are on it afterwards.
  const blocks = ledger.toSend();
  if (blocks.isEmpty()) return;
  await pool.copy(blocks);
  await ledger.sent({ blocks, resent: pool.takeResent() });
}
