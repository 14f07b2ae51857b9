/**
 * Decides about a detached device in the record of a shutdown. The record is saved in several steps, and
 * systemd-shutdown removes device-mapper and md devices before its hooks run. So a device may be recorded in one step
 * and gone in the next. It keeps its entry if the map that is left of it in the kernel shows that nothing was written
 * since (docs/formats/reboot.md). Pure.
 */
import { formatBytes } from '../../base/bytes.ts';
import type { Remains } from '../tracker.ts';
import type { RebootRecord, RecordedDevice } from './shutdown-record.ts';

/**
 * Returns the entry of the earlier record, or why it does not count. The epoch identifies the device, because device
 * numbers are reused.
 */
export function entryOfDetached(
  earlier: RebootRecord | undefined,
  remains: Pick<Remains, 'epoch' | 'generation' | 'dirty' | 'lost'>,
): RecordedDevice | string {
  const { epoch, generation, dirty, lost } = remains;
  const entry = earlier?.devices.find((each) => each.epoch.id === epoch.id);
  if (entry === undefined)
    return (
      earlier?.leftOut.find((each) => each.epoch === epoch.id)?.why ??
      'it was detached before it could be recorded'
    );
  if (lost !== undefined) return lost;
  if (entry.generation !== generation) return 'its changed blocks were taken after it was recorded';
  if (entry.dirty.size !== dirty.size || entry.dirty.unit !== dirty.unit)
    return `it was recorded with ${entry.dirty.size} bytes in units of ${entry.dirty.unit}, and its map has ${dirty.size} in units of ${dirty.unit}`;
  const since = dirty.clone();
  since.andNot(entry.dirty);
  if (!since.isEmpty())
    return `${formatBytes(since.bytes())} of it were written after it was recorded and before it was detached`;
  return entry;
}
