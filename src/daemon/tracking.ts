/** Describes tracking and chains for the API (docs/api.md), and ends tracking. */
import { trackedDevice } from '../tracking/tracked-device.ts';
import { AgentError, toAgentError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Device } from '../devices/device.ts';
import { Chain } from '../tracking/chain.ts';
import type { DeviceTracking, TrackerRegistry, TrackerSupport } from '../tracking/tracker-registry.ts';
import { fingerprintUnit } from '../tracking/fingerprints.ts';
import type { DeviceNumbers } from '../tracking/tracker.ts';
import type { DaemonDependencies } from './daemon-dependencies.ts';
import type {
  ChainDocument,
  ContinuityDocument,
  DeviceTrackingDocument,
  TrackingDocument,
  TrackingStoppedDocument,
} from '../api/tracking.ts';
import type { JobTable } from './jobs.ts';
import { describeOutcome, type RebootOutcome } from './reboot/outcome.ts';

export interface TrackingDependencies extends Pick<DaemonDependencies, 'listDevices' | 'findDevice'> {
  readonly trackers: TrackerRegistry;
  readonly jobs: JobTable;
  readonly log: Log;
  /** The result of using the record of the last shutdown. Undefined if that was not tried. */
  readonly reboot?: RebootOutcome | undefined;
  /** Reports whether tracking would continue over the next reboot. */
  readonly continuity: () => Promise<ContinuityDocument>;
}

export class Tracking {
  readonly #dependencies: TrackingDependencies;

  constructor(dependencies: TrackingDependencies) {
    this.#dependencies = dependencies;
  }

  async describe(): Promise<TrackingDocument> {
    const { trackers, listDevices } = this.#dependencies;
    const support = await trackers.support();
    const devices = await listDevices();
    const documents: DeviceTrackingDocument[] = [];
    for (const device of devices) {
      const described = trackedDevice(device, devices);
      if (described === undefined) continue;
      const looked = await trackers.look(described);
      if (looked === undefined && !device.backup.possible) continue;
      documents.push(deviceTracking(device, looked, support, this.#dependencies.reboot));
    }
    for (const { path, ...numbers } of await trackers.tracked())
      if (!devices.some((device) => isSame(device, numbers))) documents.push(goneDevice(path));
    return {
      trackers: support.map(({ kind, supported, why, help }) => ({
        kind,
        supported,
        why,
        help: help === '' ? null : help,
      })),
      continuity: await this.#dependencies.continuity(),
      devices: documents,
    };
  }

  /** Ends the tracking of the device of this name, or of all devices. Throws DEVICE_BUSY while a job needs it. */
  async stop(name: string | undefined): Promise<TrackingStoppedDocument> {
    const { trackers, listDevices, findDevice, log } = this.#dependencies;
    const devices = await listDevices();
    const stopped: string[] = [];
    if (name === undefined) {
      this.#refuseWhileRunning();
      const all = [...devices, ...(await trackers.tracked())];
      for (const device of all)
        if (!stopped.includes(device.path) && (await this.#isTracked(device, devices)))
          stopped.push(device.path);
      await trackers.stop();
    } else {
      const device = await this.#named(name, devices, findDevice);
      this.#refuseWhileRunning(device.path);
      if (await this.#isTracked(device, devices)) stopped.push(device.path);
      await trackers.untrack(device);
    }
    log.info({ devices: stopped }, 'tracking was stopped');
    return { stopped };
  }

  /** Finds a device by its name. If the device is gone, finds it by the path under which it was tracked. */
  async #named(
    name: string,
    devices: readonly Device[],
    findDevice: DaemonDependencies['findDevice'],
  ): Promise<DeviceNumbers & Pick<Device, 'path'>> {
    try {
      return await findDevice(devices, name);
    } catch (thrown) {
      const gone = (await this.#dependencies.trackers.tracked()).find(({ path }) => path === name);
      if (gone === undefined || toAgentError(thrown).code !== 'DEVICE_NOT_FOUND') throw thrown;
      return gone;
    }
  }

  async #isTracked(numbers: DeviceNumbers, devices: readonly Device[]): Promise<boolean> {
    const { trackers } = this.#dependencies;
    const device = devices.find((each) => isSame(each, numbers));
    const described = device && trackedDevice(device, devices);
    if (described !== undefined && (await trackers.look(described)) !== undefined) return true;
    return (await trackers.tracked()).some((each) => isSame(each, numbers));
  }

  #refuseWhileRunning(path?: string): void {
    const job = this.#dependencies.jobs
      .running()
      .find(({ devices }) => path === undefined || devices.some(({ device }) => device === path));
    if (job !== undefined)
      throw new AgentError('DEVICE_BUSY', `Job ${job.uuid} needs the tracking of its devices`, {
        hint: `wait for it, or end it with 'dattocli stopbackup ${job.uuid}'`,
      });
  }
}

function isSame(one: DeviceNumbers, other: DeviceNumbers): boolean {
  return one.major === other.major && one.minor === other.minor;
}

const untracked = {
  tracker: null,
  since: null,
  epoch: null,
  unit: null,
  dirty_bytes: null,
  memory: null,
  pinned: null,
};

function deviceTracking(
  device: Device,
  looked: DeviceTracking | undefined,
  support: readonly TrackerSupport[],
  outcome: RebootOutcome | undefined,
): DeviceTrackingDocument {
  const uuid = device.filesystem?.uuid ?? null;
  const reboot = describeOutcome(outcome, uuid ?? '', looked?.state.epoch.id) ?? null;
  const named = { device: device.path, uuid, reboot };
  if (looked === undefined) return { ...named, ...untracked, ...whyNot(support) };
  const { state, doubt } = looked;
  return {
    ...named,
    tracker: state.kind,
    since: new Date(state.epoch.since).toISOString(),
    epoch: state.epoch.id,
    unit: state.unit,
    dirty_bytes: state.dirtyBytes,
    memory: state.memory,
    pinned: state.pinned,
    why: doubt ?? null,
    help: doubt === undefined ? null : 'the next backup compares all used blocks and begins a new epoch',
  };
}

function whyNot(support: readonly TrackerSupport[]): { why: string; help: string | null } {
  if (support.some(({ supported }) => supported))
    return {
      why: 'no backup of it has begun to track it',
      help: "tracking begins with its first backup, 'dattocli startbackup --full'",
    };
  const help = support.flatMap((each) => (each.help === '' ? [] : [each.help])).join('; ');
  return {
    why: support.map(({ why }) => why).join('; ') || 'nothing can track it',
    help: help === '' ? null : help,
  };
}

function goneDevice(path: string): DeviceTrackingDocument {
  return {
    ...{ device: path, uuid: null, reboot: null },
    ...untracked,
    why: 'the device is gone, and its map is still there',
    help: `'dattocli tracking stop ${path}' removes it`,
  };
}

/** Describes the chain of each device and target, sorted by device. */
export async function listChains(directory: string): Promise<ChainDocument[]> {
  const documents: ChainDocument[] = [];
  for await (const { record, pending } of Chain.all(directory, fingerprintUnit))
    documents.push({
      device: record.path,
      uuid: record.uuid === '' ? null : record.uuid,
      target: record.target,
      complete: record.state === 'complete',
      torn: record.torn ?? false,
      tracker: record.tracker,
      epoch: record.epoch?.id ?? null,
      job: record.job,
      completed_at: record.completedAt,
      device_size: record.size,
      pending_bytes: pending.bytes(),
    });
  return documents.sort((a, b) => (`${a.device}\n${a.target}` < `${b.device}\n${b.target}` ? -1 : 1));
}
