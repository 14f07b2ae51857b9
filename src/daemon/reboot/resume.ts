/**
 * `dattod reboot resume`: early in a boot, before the filesystems are mounted, takes the record of the last shutdown
 * from its place and goes on with the epochs of the devices that nobody can have written to since
 * (docs/formats/reboot.md). Whatever is odd leaves a device to a differential, with the reason.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { trackedDevice } from '../../backup/tracked-device.ts';
import { AgentError, toAgentError } from '../../base/errors.ts';
import type { Device } from '../../devices/device.ts';
import { isQuickLook, quickLookWrites } from '../../filesystems/ext/signs-of-life.ts';
import { signDifference } from '../../filesystems/signs.ts';
import type { TrackerChoice } from '../../tracking/choose.ts';
import { consumeRecord } from '../../tracking/reboot/place.ts';
import { decodeRecord, type RecordedDevice } from '../../tracking/reboot/record.ts';
import type { TrackedDevice, Tracker } from '../../tracking/tracker.ts';
import type { DeviceOutcome, RebootOutcome } from './outcome.ts';
import { identityOf, mountedHow, type Mounted, signsOf, unsuitable } from './quiet.ts';

export interface Resuming {
  readonly trackers: TrackerChoice;
  readonly listDevices: () => Promise<readonly Device[]>;
  readonly bootId: string;
  /** When this boot began, milliseconds since 1970. */
  readonly bootedAt: number;
  /** Of the record. */
  readonly place: string;
  /** How long devices that are not there yet are waited for, milliseconds. */
  readonly waitMs: number;
}

export async function resumeAfterReboot(resuming: Resuming): Promise<RebootOutcome> {
  const { bootId, place, waitMs } = resuming;
  // Gone before anything comes of it: no record is used twice.
  const bytes = await consumeRecord(place, { waitMs }).catch((thrown: unknown) => toAgentError(thrown));
  if (bytes instanceof AgentError) return nothing(bytes.message);
  const record = bytes === undefined ? undefined : decodeRecord(bytes);
  if (record === undefined)
    return nothing('there is no record of a clean shutdown (a power cut, or the shutdown was not saved)');
  if (typeof record === 'string') return nothing(`the record of the shutdown is of no use: ${record}`);
  const shutdown = new Date(record.at).toISOString();
  if (record.bootId === bootId)
    return { ...nothing('the record is of this boot: the machine was not restarted'), shutdown };
  const left = record.leftOut.map(({ path, uuid, why }): DeviceOutcome => ({
    device: path,
    uuid,
    epoch: null,
    why,
  }));
  return { shutdown, why: null, devices: [...(await resumeAll(record.devices, resuming)), ...left] };
}

function nothing(why: string): RebootOutcome {
  return { shutdown: null, why, devices: [] };
}

async function resumeAll(
  recorded: readonly RecordedDevice[],
  { trackers, listDevices, waitMs, bootedAt }: Resuming,
): Promise<DeviceOutcome[]> {
  const outcomes: DeviceOutcome[] = [];
  let waiting = [...recorded];
  for (const deadline = performance.now() + waitMs; ;) {
    const devices = await listDevices();
    const last = performance.now() >= deadline;
    const absent: RecordedDevice[] = [];
    for (const each of waiting) {
      const found = devices.filter(({ filesystem }) => filesystem?.uuid === each.uuid);
      if (found.length === 0 && !last) {
        absent.push(each);
        continue;
      }
      const why = await resumeOne(each, found, devices, trackers, bootedAt).catch(
        (thrown: unknown) => toAgentError(thrown).message,
      );
      outcomes.push({
        device: found[0]?.path ?? each.path,
        uuid: each.uuid,
        epoch: why === undefined ? each.epoch.id : null,
        why: why ?? null,
      });
    }
    waiting = absent;
    if (waiting.length === 0) return outcomes;
    await sleep(200);
  }
}

/** Undefined where the epoch goes on, otherwise why it does not. */
async function resumeOne(
  recorded: RecordedDevice,
  found: readonly Device[],
  devices: readonly Device[],
  trackers: TrackerChoice,
  bootedAt: number,
): Promise<string | undefined> {
  const [device, another] = found;
  if (device === undefined) return `no device with the UUID ${recorded.uuid} was there before the mounts`;
  if (another !== undefined) return `${device.path} and ${another.path} have the same UUID`;
  const described = trackedDevice(device, devices);
  const problem = unsuitable(device) ?? (await difference(recorded, device, devices));
  if (described === undefined || problem !== undefined) return problem ?? 'it cannot be tracked';
  const early = await mountedHow(device);
  if (typeof early === 'object') return mountedTooEarly(early);
  if ((await trackers.look(described)) !== undefined) return 'it was tracked anew in this boot already';

  // Tracked first: what is written from here on is marked, and what was written before shows in the signs.
  const started = await trackers.start(described, 'ebpf');
  if (started.tracker === undefined) return started.why;
  const { tracker } = started;
  const why = await goOn(recorded, device, described, tracker, bootedAt).catch(
    (thrown: unknown) => toAgentError(thrown).message,
  );
  if (why !== undefined) await tracker.untrack(described);
  return why;
}

async function goOn(
  recorded: RecordedDevice,
  device: Device,
  described: TrackedDevice,
  tracker: Tracker,
  bootedAt: number,
): Promise<string | undefined> {
  if (tracker.resume === undefined) return 'what tracks it now cannot go on with an epoch';
  const mounted = await mountedHow(device);
  if (typeof mounted === 'object') return mountedTooEarly(mounted);
  const signs = await signsOf(device.path);
  if (typeof signs === 'string') return signs;
  const { dirty, epoch, generation } = recorded;
  const changed = signDifference(recorded.signs, signs);
  if (changed !== undefined) {
    // The root filesystem is looked at by e2fsck before its first mount.
    if (mounted !== 'read-only' || !isQuickLook(recorded.signs, signs, bootedAt)) return changed;
    dirty.mark(quickLookWrites.offset, quickLookWrites.length);
  }
  await tracker.resume(described, { epoch, generation, dirty });
  return undefined;
}

async function difference(
  recorded: RecordedDevice,
  device: Device,
  devices: readonly Device[],
): Promise<string | undefined> {
  const pairs: readonly (readonly [string, string | number, string | number])[] = [
    ['size in bytes', recorded.size, device.size],
    ['start on its disk', recorded.partitionStart, device.partition?.start ?? 0],
    ['disk', recorded.identity, await identityOf(device, devices)],
  ];
  for (const [what, before, now] of pairs)
    if (before !== now) return `its ${what} was "${before}" and is "${now}"`;
  return undefined;
}

function mountedTooEarly({ writableAt }: Exclude<Awaited<ReturnType<typeof mountedHow>>, Mounted>): string {
  return `it was mounted for writing at ${writableAt} before the agent looked`;
}
