/** What the daemon needs of the rooms below it, as arguments, so that tests give it others. */
import type { PrepareJob } from '../backup/job.ts';
import type { Log } from '../base/log.ts';
import type { Device } from '../devices/device.ts';
import type { TrackerPlaces } from '../tracking/candidates.ts';
import type { TrackerCandidate } from '../tracking/choose.ts';
import type { TryLock } from './instance.ts';

export interface Collaborators {
  readonly prepareJob: PrepareJob;
  /** The block devices of this machine. */
  readonly listDevices: () => Promise<readonly Device[]>;
  /** The one device with this UUID, path, mount point, label or partition UUID. Throws DEVICE_NOT_FOUND or DEVICE_AMBIGUOUS. */
  readonly findDevice: (
    devices: readonly Device[],
    name: string,
    isCopy?: (device: Device) => boolean,
  ) => Promise<Device>;
  /** Thaws what an earlier daemon left frozen, by the records in the directory, and logs it. */
  readonly thawLeftovers: (runDirectory: string, log: Log) => Promise<unknown>;
  /** Removes the LVM snapshots that an earlier daemon left, by its records in the directory, and logs it. Never throws. Tests have none. */
  readonly removeLeftoverSnapshots?: (stateDirectory: string, log: Log) => Promise<unknown>;
  readonly tryLock: TryLock;
  /** What can track writes, the best first. */
  readonly trackerCandidates: (places: TrackerPlaces) => readonly TrackerCandidate[];
}
