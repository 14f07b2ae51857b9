/**
 * A record of a shutdown that still lies at its place when the daemon starts. A record of this boot is stale: after
 * the save that made it, the machine was not shut down. From now on, devices may be written to without a sign of life.
 * A record of another boot was not used, and that is the reason why tracking did not continue.
 */
import { toAgentError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { readRecord, removeRecord } from '../../tracking/reboot/place.ts';
import { decodeRecord, usedBy } from '../../tracking/reboot/shutdown-record.ts';
import { outcomeOfWaiting, type RebootOutcome } from './outcome.ts';

/**
 * Returns the outcome to report if `dattod reboot resume` has reported none. Removes a record of this boot. Returns
 * undefined if there is no record of another boot. Never rejects.
 */
export async function checkUnusedRecord(
  place: string,
  bootId: string,
  log: Pick<Log, 'warn' | 'info'>,
): Promise<RebootOutcome | undefined> {
  try {
    const bytes = await readRecord(place);
    const record = bytes && decodeRecord(bytes);
    // `resume` reports a damaged record.
    if (bytes === undefined || typeof record !== 'object') return undefined;
    if (record.bootId === bootId) {
      await removeRecord(place);
      log.info({ place }, 'a record of this boot was removed: the machine was not shut down');
      return undefined;
    }
    return outcomeOfWaiting(record, usedBy(bytes));
  } catch (thrown) {
    log.warn({ place, err: toAgentError(thrown) }, 'the place of the record of the shutdown cannot be read');
    return undefined;
  }
}
