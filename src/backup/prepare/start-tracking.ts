/** Starts to track a device for a job, or continues an epoch. */
import type { Device } from '../../devices/device.ts';
import type { Tracked } from '../../tracking/tracker-registry.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import type { TrackedDevice } from '../../tracking/tracker.ts';
import type { JobEnvironment, JobOptions } from '../job.ts';
import { trackedDevice } from '../../tracking/tracked-device.ts';

export type StartedTracking =
  | {
      readonly tracked: Tracked;
      readonly device: TrackedDevice;
      /** Bytes per bit of the maps of the job. */
      readonly unit: number;
      readonly why: string;
    }
  /** `why`: the reason why nothing tracks the device. */
  | {
      readonly tracked: undefined;
      readonly device: undefined;
      readonly unit: undefined;
      readonly why: string;
    };

function notTracked(why: string): StartedTracking {
  return { tracked: undefined, device: undefined, unit: undefined, why };
}

export async function startTracking(
  device: Device,
  context: {
    readonly devices: readonly Device[];
    readonly options: Pick<JobOptions, 'tracker'>;
    readonly environment: Pick<JobEnvironment, 'startTracking'>;
  },
  undo: AsyncDisposableStack,
): Promise<StartedTracking> {
  const { devices, options, environment } = context;
  const described = trackedDevice(device, devices);
  if (described === undefined || environment.startTracking === undefined)
    return notTracked('nothing tracks the writes to it');
  const tracked = await environment.startTracking(described, options.tracker);
  if (tracked.tracker === undefined) return notTracked(tracked.why);
  const { tracker, began } = tracked;
  if (began) undo.defer(() => tracker.untrack(described));
  // If a bit of the map covered several fingerprint units, it would not be known which of them to send.
  const unit = Math.min(tracker.state(described)?.unit ?? fingerprintUnit, fingerprintUnit);
  return { tracked, device: described, unit, why: '' };
}
