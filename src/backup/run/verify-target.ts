/** Reads back from the target the data that was sent, after the last flush. */
import { Bitmap } from '../../base/bitmap.ts';
import { GiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { itemSize, spread } from '../copy/segments.ts';
import type { DeviceBackup } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';

/** Bytes; ten minutes at 100 MB/s. */
const readBackMost = 64 * GiB;

/** Reads back as much of the target as the job's options demand. Throws TARGET_MISMATCH. */
export async function verifyTarget(device: DeviceBackup, { options, reporter }: JobContext): Promise<void> {
  const { pool, ledger, pair } = device;
  if (options.verify === 'none') return;
  if (!pool.facts.abilities.read) {
    reporter.warn('NOT_VERIFIED', `nothing was read back from ${pool.targetName}`, pair.device.path);
    return;
  }
  try {
    pool.forgetSamples(ledger.pending);
    await pool.checkSamples();
    const wanted = options.verify === 'full' ? ledger.used : sentBeforeReconnect(device);
    if (wanted === undefined) return;
    const { mismatches, firstMismatch } = await pool.verify(ledger.known(wanted));
    if (mismatches > 0)
      throw new AgentError(
        'TARGET_MISMATCH',
        `${pool.targetName} returns other data than was written to it in ${mismatches} places, the first at ${firstMismatch}`,
        { hint: 'do not trust this image; check the disk and the memory of the receiver' },
      );
  } catch (error) {
    // The chain is wrong about the content of the target: the next backup has to be a full one.
    if (error instanceof AgentError && error.code === 'TARGET_MISMATCH') await ledger.distrust();
    throw error;
  }
}

/**
 * Returns the blocks that a server had confirmed before its connection was lost: samples cannot prove that it still has
 * all of them. They are read back, up to `readBackMost` bytes, evenly spread. Undefined if there are none.
 */
function sentBeforeReconnect({ pool, ledger }: DeviceBackup): Bitmap | undefined {
  const { doubtful, fingerprinted } = pool;
  if (doubtful === undefined || !fingerprinted) return undefined;
  const set = new Bitmap(ledger.used.size, ledger.used.unit);
  const wanted =
    doubtful.bytes() <= readBackMost ? doubtful.extents() : spread(doubtful, readBackMost / itemSize);
  for (const { offset, length } of wanted) set.mark(offset, length);
  return set;
}
