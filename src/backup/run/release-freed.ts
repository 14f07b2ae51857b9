/** Frees the space at the target of blocks that are no longer in use (`--trim`). */
import type { ErrorCode } from '../../base/error-codes.ts';
import { AgentError } from '../../base/errors.ts';
import type { DeviceBackup } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';

/** To be called when all blocks are sent and flushed, and the ledger has the allocation map of the job's instant. */
export async function releaseFreed(device: DeviceBackup, job: JobContext): Promise<void> {
  if (job.options.trim) await trimFreed(device, job);
  await device.ledger.settled();
}

async function trimFreed({ ledger, pool, pair, status }: DeviceBackup, job: JobContext): Promise<void> {
  const freed = ledger.freed();
  if (freed.isEmpty()) return;
  const warn = (message: string): void => job.reporter.warn('NOT_TRIMMED', message, pair.device.path);
  const { trim, writeZeroes } = pool.facts.abilities;
  if (!trim && !writeZeroes) {
    warn(`${pool.targetName} offers no trim, so it frees no space`);
    return;
  }
  await ledger.releaseFreed(freed, async (blocks) => {
    try {
      status.bytes_trimmed = await pool.trim(blocks);
      return true;
    } catch (error) {
      if (!(error instanceof AgentError) || !refusals.has(error.code)) throw error;
      warn(`${pool.targetName} refused to free space: ${error.message}`);
      return false;
    }
  });
}

/** The errors by which a target refuses. A lost connection is none of them. */
const refusals: ReadonlySet<ErrorCode> = new Set([
  'NBD_SERVER_ERROR',
  'TARGET_WRITE_ERROR',
  'TARGET_READ_ONLY',
  'TARGET_FULL',
]);
