/**
 * The documents of the API (docs/api.md): the daemon answers with them, and the command prints them under `--json`.
 * This file has only types, so that `cli/` can share them without loading code of the daemon. Fields are only ever
 * added.
 */
export type { DeviceStatus, JobKind, JobStatus } from '../backup/status.ts';
import type { JobKind } from '../backup/status.ts';

/** The body of `POST /v1/jobs`. */
export interface StartDocument {
  kind: JobKind;
  devices: { device: string; target: string }[];
  options?: JobOptionsDocument;
}

/** Options of a job. A missing one comes from the daemon's configuration, or else from the defaults. */
export interface JobOptionsDocument {
  /** Milliseconds. */
  max_freeze_ms?: number;
  /** Bytes per second. */
  rate?: number;
  impact?: 'low' | 'normal' | 'high';
  on_read_error?: 'fail' | 'zero';
  connections?: number;
  /** Milliseconds. */
  reconnect_ms?: number;
  verify?: 'none' | 'sample' | 'full';
  tracker?: 'auto' | 'ebpf' | 'blktrace' | 'none';
  snapshot?: 'auto' | 'never';
  /** Bytes. */
  snapshot_size?: number;
  fingerprints?: boolean;
  fallback?: boolean;
  trim?: boolean;
  max_passes?: number;
  /** Absolute paths of executables. */
  pre_freeze_hook?: string;
  post_thaw_hook?: string;
  frozen_hook?: string;
}

/** One block device of `GET /v1/devices`. Sizes are in bytes. Null: there is no such value, or it is not known. */
export interface DeviceDocument {
  path: string;
  kernel_name: string;
  kind: string;
  size: number;
  used: number | null;
  sector_size: number;
  read_only: boolean;
  file_system: string | null;
  uuid: string | null;
  label: string | null;
  partition_uuid: string | null;
  partition_label: string | null;
  /** Path of the whole disk if this is a partition. */
  disk: string | null;
  backing_file: string | null;
  holders: string[];
  mounts: { path: string; read_only: boolean; root: string }[];
  backup: { possible: boolean; how: string };
}

/** The answer of `GET /v1/tracking`. */
export interface TrackingDocument {
  /** The trackers of this agent, the best first, and whether this machine supports each. */
  trackers: { kind: string; supported: boolean; why: string; help: string | null }[];
  /** Whether tracking would continue over the next clean reboot. */
  continuity: ContinuityDocument;
  devices: DeviceTrackingDocument[];
}

export interface ContinuityDocument {
  /** The next clean shutdown is recorded, and the record is used at the boot after it. */
  armed: boolean;
  why: string;
  /** The step that would help. Null if nothing has to be done. */
  help: string | null;
}

export interface DeviceTrackingDocument {
  device: string;
  uuid: string | null;
  /** `ebpf` or `blktrace`. Null if nothing tracks it; then all fields up to `pinned` are null too. */
  tracker: string | null;
  /** Start of the epoch, ISO 8601. */
  since: string | null;
  epoch: string | null;
  /** Bytes per bit of the map. */
  unit: number | null;
  /** Bytes marked now. */
  dirty_bytes: number | null;
  /** Bytes of memory that the map takes. */
  memory: number | null;
  /** Tracking continues while the daemon does not run. */
  pinned: boolean | null;
  /** Whether tracking continued over the last reboot, or why not. Null if there is nothing to report. */
  reboot: string | null;
  /** Why it is not tracked, or why writes may have been missed. Null if all is well. */
  why: string | null;
  help: string | null;
}

/** The answer of `POST /v1/tracking/stop`: the devices whose tracking was ended. */
export interface TrackingStoppedDocument {
  stopped: string[];
}

/** One chain of `GET /v1/chains`: the state of one target. */
export interface ChainDocument {
  device: string;
  uuid: string | null;
  target: string;
  /** A backup has been completed, so an incremental or a differential can build on it. */
  complete: boolean;
  /** The target now holds no image of one instant: a job that wrote to it did not succeed. */
  torn: boolean;
  /** The tracker of the device at the last backup. If `none`, the next incremental becomes a differential. */
  tracker: string;
  epoch: string | null;
  /** UUID of the last completed job. */
  job: string | null;
  completed_at: string | null;
  device_size: number;
  /** Bytes that the target does not hold as they were: free ones that were never sent, and known changes. */
  pending_bytes: number;
}

export interface LsbRelease {
  id: string;
  description: string;
  release: string;
  codename: string;
}

export interface BasicInfoDocument {
  agent_version: string;
  hostname: string;
  kernel: string;
  lsb_release: LsbRelease;
}

/** A block device as the predecessor's `completeinfo` described it. A missing value is an empty text or 0. */
export interface BlockDeviceDocument {
  uuid: string;
  real_path: string;
  device_size: number;
  block_size: number;
  file_system: string;
  mount_location: string;
  used_space: number;
}

export interface CompleteInfoDocument extends BasicInfoDocument {
  os_name: string;
  arch: string;
  cpus: number;
  /** Bytes. */
  memory: number;
  dattod_uptime_seconds: number;
  block_devices: BlockDeviceDocument[];
}

export interface HealthDocument {
  status: 'ok';
  version: string;
  pid: number;
  uptime_seconds: number;
  running_jobs: number;
}
