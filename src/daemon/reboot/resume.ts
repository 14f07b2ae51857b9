/**
 * `dattod reboot resume`: runs early in a boot, before the filesystems are mounted. It uses the record of the last
 * shutdown to continue the epochs of devices that no process can have written to since (docs/formats/reboot.md). If
 * anything is unusual about a device, its next backup is a differential, and the reason is reported. It may be killed
 * at any point: the state of each device is reported by then, and the record is not used again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { trackedDevice } from '../../tracking/tracked-device.ts';
import { AgentError, toAgentError } from '../../base/errors.ts';
import type { Device } from '../../devices/device.ts';
import { isQuickLook, quickLookWrites } from '../../filesystems/ext/signs-of-life.ts';
import { signDifference } from '../../filesystems/signs.ts';
import type { TrackerRegistry } from '../../tracking/tracker-registry.ts';
import { markRecordUsed, readRecord, removeRecord } from '../../tracking/reboot/place.ts';
import { decodeRecord, type RecordedDevice, usedBy } from '../../tracking/reboot/shutdown-record.ts';
import type { TrackedDevice, Tracker } from '../../tracking/tracker.ts';
import type { DeviceOutcome, RebootOutcome } from './outcome.ts';
import { identityOf, signsOf, whyUnsuitable } from './recognise-device.ts';
import { mountState, type MountState } from './write-access.ts';

export interface Resuming {
  readonly trackers: TrackerRegistry;
  readonly listDevices: () => Promise<readonly Device[]>;
  readonly bootId: string;
  /** When this boot began, milliseconds since 1970. */
  readonly bootedAt: number;
  /** Path of the record. */
  readonly place: string;
  /** How long to wait for devices that do not exist yet, milliseconds. */
  readonly waitMs: number;
  /** How long everything may take, milliseconds. Devices that are not reached by then get a differential. */
  readonly limitMs: number;
  /** Called with the state of all devices so far: before an epoch continues, and after each device. */
  readonly report: (outcome: RebootOutcome) => Promise<void>;
}

/**
 * Continues the epochs and returns the outcome. `report` is called only if the record is used; any other outcome has no
 * devices. Throws FILE_ERROR.
 */
export async function resumeAfterReboot(resuming: Resuming): Promise<RebootOutcome> {
  const { bootId, place, waitMs, limitMs, report } = resuming;
  const deadline = performance.now() + limitMs;
  const bytes = await readRecord(place, { waitMs }).catch((thrown: unknown) => toAgentError(thrown));
  if (bytes instanceof AgentError) return nothing(bytes.message);
  const record = bytes && decodeRecord(bytes);
  if (bytes === undefined || record === undefined)
    return nothing('there is no record of a clean shutdown (a power cut, or the shutdown was not saved)');
  const user = usedBy(bytes);
  const shutdown = typeof record === 'string' ? null : new Date(record.at).toISOString();
  const useless =
    typeof record === 'string'
      ? `the record of the shutdown is of no use: ${record}`
      : user !== undefined
        ? `${user === bootId ? 'this boot' : 'an earlier boot'} began to use the record and did not come to an end`
        : record.bootId === bootId
          ? 'the record is of this boot: the machine was not restarted'
          : undefined;
  if (useless !== undefined || typeof record === 'string') {
    await removeRecord(place).catch(() => undefined);
    return { ...nothing(useless ?? ''), shutdown };
  }

  const outcomes = new Map<RecordedDevice, DeviceOutcome>(
    record.devices.map((each) => [
      each,
      notReached(each, 'it was ended before it was done with this device'),
    ]),
  );
  const left = record.leftOut.map(({ path, uuid, why }) => ({ device: path, uuid, epoch: null, why }));
  const outcome = (): RebootOutcome => ({ shutdown, why: null, devices: [...outcomes.values(), ...left] });
  // The order: report, mark the record as used, use it. Wherever this process is killed, the daemon then knows the
  // reason, and no record is used twice.
  await report(outcome());
  await markRecordUsed(place, bytes, bootId);
  let late = false;
  const all = resumeAll(record.devices, resuming, async (recorded, found) => {
    // A device that is finished after the time limit does not change the report.
    if (late) return;
    outcomes.set(recorded, found);
    await report(outcome());
  });
  if (await isLate(all, deadline - performance.now())) {
    late = true;
    const seconds = Math.round(limitMs / 1000);
    for (const [recorded, { why, epoch }] of outcomes)
      if (why !== null && epoch !== null)
        outcomes.set(recorded, notReached(recorded, `it was not done with this device after ${seconds} s`));
    await report(outcome());
  }
  // If it cannot be removed, its mark keeps it from being used again.
  await removeRecord(place).catch(() => undefined);
  return outcome();
}

/** True if the work is not done after `ms` milliseconds. */
async function isLate(work: Promise<unknown>, ms: number): Promise<boolean> {
  const done = new AbortController();
  const time = sleep(Math.max(0, ms), true, { signal: done.signal }).catch(() => false);
  try {
    return await Promise.race([work.then(() => false), time]);
  } finally {
    done.abort();
  }
}

function nothing(why: string): RebootOutcome {
  return { shutdown: null, why, devices: [] };
}

/** Returns the outcome of a device whose epoch may or may not continue yet. */
function notReached({ path, uuid, epoch }: RecordedDevice, why: string): DeviceOutcome {
  return { device: path, uuid, epoch: epoch.id, why: `'dattod reboot resume' did not continue it: ${why}` };
}

/** Resumes each device when it appears. Calls `tell` once for each device. */
async function resumeAll(
  recorded: readonly RecordedDevice[],
  { trackers, listDevices, waitMs, bootedAt }: Resuming,
  tell: (recorded: RecordedDevice, outcome: DeviceOutcome) => Promise<void>,
): Promise<void> {
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
      await tell(each, {
        device: found[0]?.path ?? each.path,
        uuid: each.uuid,
        epoch: why === undefined ? each.epoch.id : null,
        why: why ?? null,
      });
    }
    waiting = absent;
    if (waiting.length === 0) return;
    await sleep(200);
  }
}

/** Continues the epoch of one device. Returns undefined if it continues, otherwise why it does not. */
async function resumeOne(
  recorded: RecordedDevice,
  found: readonly Device[],
  devices: readonly Device[],
  trackers: TrackerRegistry,
  bootedAt: number,
): Promise<string | undefined> {
  const [device, another] = found;
  if (device === undefined) return `no device with the UUID ${recorded.uuid} was there before the mounts`;
  if (another !== undefined) return `${device.path} and ${another.path} have the same UUID`;
  const described = trackedDevice(device, devices);
  const problem = whyUnsuitable(device) ?? (await difference(recorded, device, devices));
  if (described === undefined || problem !== undefined) return problem ?? 'it cannot be tracked';
  const early = await mountState(device);
  if (typeof early === 'object') return mountedTooEarly(early);
  if ((await trackers.look(described)) !== undefined) return 'its tracking already began again in this boot';

  // Tracking starts first: later writes are marked, and earlier writes show in the signs.
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
  if (tracker.resume === undefined) return 'its present tracker cannot continue an epoch';
  const mounted = await mountState(device);
  if (typeof mounted === 'object') return mountedTooEarly(mounted);
  const signs = await signsOf(device.path);
  if (typeof signs === 'string') return signs;
  const { dirty, epoch, generation } = recorded;
  const changed = signDifference(recorded.signs, signs);
  if (changed !== undefined) {
    // e2fsck checks the root filesystem before its first mount. The place that this quick look writes to is known.
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

function mountedTooEarly({
  writableAt,
}: Exclude<Awaited<ReturnType<typeof mountState>>, MountState>): string {
  return `it was mounted for writing at ${writableAt} before the agent looked`;
}
