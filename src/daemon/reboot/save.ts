/**
 * `dattod reboot save`: the last drain of all devices whose filesystems nobody can write to any more, with their signs
 * of life, into the record (docs/formats/reboot.md). It runs when the filesystems are unmounted, and again when root
 * has been remounted read-only, where the record's place can still be written then.
 */
import { trackedDevice } from '../../backup/tracked-device.ts';
import { toAgentError } from '../../base/errors.ts';
import type { Device } from '../../devices/device.ts';
import { signDifference } from '../../filesystems/signs.ts';
import type { TrackerChoice } from '../../tracking/choose.ts';
import { writeRecord } from '../../tracking/reboot/place.ts';
import { encodeRecord, type LeftOut, type RecordedDevice } from '../../tracking/reboot/record.ts';
import { heldBySomebody, identityOf, mountedHow, settle, signsOf, unsuitable } from './quiet.ts';

export interface Saving {
  readonly trackers: TrackerChoice;
  readonly devices: readonly Device[];
  readonly bootId: string;
  /** Of the record. */
  readonly place: string;
}

export interface Saved {
  readonly devices: readonly Pick<RecordedDevice, 'path' | 'uuid'>[];
  readonly leftOut: readonly LeftOut[];
}

/** Writes the record, also where no device is in it. Throws FILE_ERROR where it cannot be written. */
export async function saveReboot({ trackers, devices, bootId, place }: Saving): Promise<Saved> {
  const saved: RecordedDevice[] = [];
  const leftOut: LeftOut[] = [];
  for (const numbers of await trackers.tracked()) {
    const device = devices.find(({ major, minor }) => major === numbers.major && minor === numbers.minor);
    const uuid = device?.filesystem?.uuid ?? '';
    const result =
      device === undefined
        ? 'it is gone'
        : await drain(device, devices, trackers).catch((thrown: unknown) => toAgentError(thrown).message);
    if (typeof result === 'string') leftOut.push({ path: numbers.path, uuid, why: result });
    else saved.push(result);
  }
  await writeRecord(place, encodeRecord({ bootId, at: Date.now(), devices: saved, leftOut }));
  return { devices: saved.map(({ path, uuid }) => ({ path, uuid })), leftOut };
}

/** What is recorded of a device, or why nothing is. */
async function drain(
  device: Device,
  devices: readonly Device[],
  trackers: TrackerChoice,
): Promise<RecordedDevice | string> {
  const described = trackedDevice(device, devices);
  const problem = unsuitable(device);
  if (described === undefined || problem !== undefined) return problem ?? 'it cannot be tracked';
  const looked = await trackers.look(described);
  if (looked === undefined) return 'it is not tracked';
  if (looked.doubt !== undefined) return looked.doubt;
  const busy = await writable(device);
  if (busy !== undefined) return busy;

  // Signs before the drain: what is written after it must show, and what came between is in it.
  await settle(device.path);
  const signs = await signsOf(device.path);
  if (typeof signs === 'string') return signs;
  const { tracker } = await trackers.start(described, 'ebpf');
  if (tracker?.resume === undefined) return 'what tracks it does not outlive a reboot';
  // Not committed: should the machine go on after all, nothing is lost.
  const { epoch, generation, dirty } = await tracker.take(described);
  if (epoch.id !== looked.state.epoch.id) return 'its epoch ended meanwhile';
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
  const mounted = await mountedHow(device);
  if (mounted === 'not') return heldBySomebody(device);
  return mounted === 'read-only' ? undefined : `it was still mounted for writing at ${mounted.writableAt}`;
}
