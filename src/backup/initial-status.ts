import type { DevicePair } from './job.ts';
import type { DeviceStatus } from '../api/job-status.ts';

/** Returns the status of a device before anything was done. `target` is the target's name. */
export function initialStatus({ device }: DevicePair, target: string): DeviceStatus {
  return {
    uuid: device.filesystem?.uuid ?? '',
    device: device.path,
    target,
    filesystem: device.filesystem?.type ?? '',
    kind: 'full',
    fallback_reason: null,
    tracker: 'none',
    device_size: device.size,
    used_bytes: 0,
    bytes_transferred: 0,
    bytes_unsynced: 0,
    bytes_sent: 0,
    bytes_zero: 0,
    pass: 0,
    freeze_ms: null,
    bytes_verified: 0,
    bytes_mismatched: 0,
    bytes_unknown: 0,
    snapshot: null,
    bytes_trimmed: 0,
    read_errors: [],
    point: null,
    bytes_stored: null,
  };
}
