/** The functions of other folders that the daemon uses: arguments, so that tests can replace them. */
import type { PrepareJob } from '../backup/job.ts';
import type { Log } from '../base/log.ts';
import type { Device } from '../devices/device.ts';
import type { TrackerPlaces } from '../tracking/candidates.ts';
import type { TrackerCandidate } from '../tracking/tracker-registry.ts';
import type { TryLock } from './instance.ts';

export interface DaemonDependencies {
  readonly prepareJob: PrepareJob;
  /** Lists the block devices of this machine. */
  readonly listDevices: () => Promise<readonly Device[]>;
  /**
   * Finds the one device with this UUID, path, mount point, label or partition UUID. Throws DEVICE_NOT_FOUND or
   * DEVICE_AMBIGUOUS.
   */
  readonly findDevice: (
    devices: readonly Device[],
    name: string,
    isCopy?: (device: Device) => boolean,
  ) => Promise<Device>;
  /** Thaws filesystems that an earlier daemon left frozen, by the records in the directory. Logs each. */
  readonly thawLeftovers: (runDirectory: string, log: Log) => Promise<unknown>;
  /**
   * Removes the LVM snapshots that an earlier daemon left, by its records in the directory. Logs each. Never throws.
   * Tests have none.
   */
  readonly removeLeftoverSnapshots?: (stateDirectory: string, log: Log) => Promise<unknown>;
  readonly tryLock: TryLock;
  /** Returns the trackers that may track writes, the best first. */
  readonly trackerCandidates: (places: TrackerPlaces) => readonly TrackerCandidate[];
}
