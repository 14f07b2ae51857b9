/**
 * `dattod reboot save`: drains the trackers of all devices whose filesystems no process can write to any more. It
 * writes the result, with the signs of life of each device, into the record (docs/formats/reboot.md). It runs several
 * times in a shutdown: when the early unit stops, when all but root is unmounted, and when root has been remounted
 * read-only. Each run adds to the record of this shutdown. Devices that are detached by then keep their entries, if
 * nothing was written to them since.
 */
import { trackedDevice } from '../../tracking/tracked-device.ts';
import { toAgentError } from '../../base/errors.ts';
import type { Device } from '../../devices/device.ts';
import { signDifference } from '../../filesystems/signs.ts';
import type { TrackerRegistry } from '../../tracking/tracker-registry.ts';
import { entryOfDetached } from '../../tracking/reboot/detached.ts';
import { readRecord, writeRecord } from '../../tracking/reboot/place.ts';
import {
  decodeRecord,
  encodeRecord,
  type LeftOut,
  type RebootRecord,
  type RecordedDevice,
  usedBy,
} from '../../tracking/reboot/shutdown-record.ts';
import { identityOf, signsOf, whyUnsuitable } from './recognise-device.ts';
import { exclusiveHolder, mountState, syncDevice } from './write-access.ts';

export interface Saving {
  readonly trackers: TrackerRegistry;
  readonly devices: readonly Device[];
  readonly bootId: string;
  /** Path of the record. */
  readonly place: string;
}

export interface Saved {
  readonly devices: readonly Pick<RecordedDevice, 'path' | 'uuid'>[];
  readonly leftOut: readonly LeftOut[];
}

/** Writes the record, even if no device is in it. Throws FILE_ERROR if that fails; an earlier record then stays. */
export async function saveReboot({ trackers, devices, bootId, place }: Saving): Promise<Saved> {
  const earlier = await savedBefore(place, bootId);
  const saved: RecordedDevice[] = [];
  const leftOut: LeftOut[] = [];
  const seen = new Set<string | undefined>();
  for (const numbers of await trackers.tracked()) {
    const remains = await trackers.remains(numbers);
    seen.add(remains?.epoch.id);
    const device = devices.find(({ major, minor }) => major === numbers.major && minor === numbers.minor);
    const there = remains?.gone === undefined ? device : undefined;
    let result: RecordedDevice | string;
    if (there !== undefined)
      result = await drain(there, devices, trackers).catch((thrown: unknown) => toAgentError(thrown).message);
    else result = remains === undefined ? 'it is gone' : entryOfDetached(earlier, remains);
    if (typeof result !== 'string') saved.push(result);
    else
      leftOut.push({
        path: numbers.path,
        uuid: there?.filesystem?.uuid ?? remains?.uuid ?? '',
        ...(remains === undefined ? {} : { epoch: remains.epoch.id }),
        why: result,
      });
  }
  for (const { path, uuid, epoch } of earlier?.devices ?? [])
    if (!seen.has(epoch.id))
      leftOut.push({ path, uuid, epoch: epoch.id, why: 'its tracking has ended since' });
  await writeRecord(place, encodeRecord({ bootId, at: Date.now(), devices: saved, leftOut }));
  return { devices: saved.map(({ path, uuid }) => ({ path, uuid })), leftOut };
}

/** Returns the record that this shutdown has written so far. Ignores a record of another boot, or one that was used. */
async function savedBefore(place: string, bootId: string): Promise<RebootRecord | undefined> {
  const bytes = await readRecord(place);
  const record = bytes && usedBy(bytes) === undefined ? decodeRecord(bytes) : undefined;
  return typeof record === 'object' && record.bootId === bootId ? record : undefined;
}

/** Returns the entry for a device, or why it gets none. */
async function drain(
  device: Device,
  devices: readonly Device[],
  trackers: TrackerRegistry,
): Promise<RecordedDevice | string> {
  const described = trackedDevice(device, devices);
  const problem = whyUnsuitable(device);
  if (described === undefined || problem !== undefined) return problem ?? 'it cannot be tracked';
  const looked = await trackers.look(described);
  if (looked === undefined) return 'it is not tracked';
  if (looked.doubt !== undefined) return looked.doubt;
  const busy = await writable(device);
  if (busy !== undefined) return busy;

  // Signs are read before the drain. A write after the drain changes the signs, and a write before it is drained.
  await syncDevice(device.path);
  const signs = await signsOf(device.path);
  if (typeof signs === 'string') return signs;
  const { tracker } = await trackers.start(described, 'ebpf');
  if (tracker?.resume === undefined) return 'its tracker does not outlive a reboot';
  // Not committed: if the machine continues after all, nothing is lost.
  const { epoch, generation, dirty } = await tracker.take(described);
  if (epoch.id !== looked.state.epoch.id) return 'its epoch ended in the meantime';
  const late = await signsOf(device.path);
  if (typeof late === 'string') return late;
  const changed = signDifference(signs, late) ?? (await writable(device));
  if (changed !== undefined) return changed;
  return {
    path: device.path,
    uuid: described.uuid,
    size: device.size,
    partitionStart: device.partition?.start ?? 0,
    identity: await identityOf(device, devices),
    signs,
    epoch,
    generation,
    dirty,
  };
}

async function writable(device: Device): Promise<string | undefined> {
  const mounted = await mountState(device);
  if (mounted === 'not') return exclusiveHolder(device);
  return mounted === 'read-only' ? undefined : `it was still mounted for writing at ${mounted.writableAt}`;
}
