/**
 * A record of a shutdown that still lies at its place when the daemon starts. One of this boot is stale: it was made by a
 * save after which the machine was not shut down, and devices may be written to without a sign of life from here on. One of
 * another boot was not used, which is the reason why tracking did not continue.
 */
import { toAgentError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { readRecord, removeRecord } from '../../tracking/reboot/place.ts';
import { decodeRecord, usedBy } from '../../tracking/reboot/record.ts';
import { outcomeOfWaiting, type RebootOutcome } from './outcome.ts';

/** What to say if `dattod reboot resume` has said nothing; undefined if there is no such record. Never rejects. */
export async function checkUnusedRecord(
  place: string,
  bootId: string,
  log: Pick<Log, 'warn' | 'info'>,
): Promise<RebootOutcome | undefined> {
  try {
    const bytes = await readRecord(place);
    const record = bytes && decodeRecord(bytes);
    // One that is damaged is for `resume` to tell of.
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
