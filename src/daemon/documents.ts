/**
 * The documents of the API (docs/api.md): what the daemon answers and the command prints under `--json`.
 * Types alone, so that `cli/` shares them without loading anything of the daemon. Fields are only ever added.
 */
export type { DeviceStatus, JobKind, JobStatus } from '../backup/status.ts';
import type { JobKind } from '../backup/status.ts';

/** The body of `POST /v1/jobs`. */
export interface StartDocument {
  kind: JobKind;
  devices: { device: string; target: string }[];
  options?: JobOptionsDocument;
}

/** Options of a job; what is left out comes from the daemon's configuration, then from the defaults. */
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

/** One block device of `GET /v1/devices`. Sizes in bytes; null where there is none or it is not known. */
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
  /** Path of the whole disk, where this is a partition. */
  disk: string | null;
  backing_file: string | null;
  holders: string[];
  mounts: { path: string; read_only: boolean; root: string }[];
  backup: { possible: boolean; how: string };
}

/** The answer of `GET /v1/tracking`. */
export interface TrackingDocument {
  /** What this machine offers to track with, the best first. */
  trackers: { kind: string; supported: boolean; why: string; help: string | null }[];
  /** Whether tracking would continue over the next clean reboot. */
  continuity: ContinuityDocument;
  devices: DeviceTrackingDocument[];
}

export interface ContinuityDocument {
  /** The next clean shutdown is recorded, and the record is used at the boot after it. */
  armed: boolean;
  why: string;
  /** What would help; null if nothing has to be done. */
  help: string | null;
}

export interface DeviceTrackingDocument {
  device: string;
  uuid: string | null;
  /** `ebpf` or `blktrace`; null where nothing tracks it, and then everything below but `why` and `help` is null. */
  tracker: string | null;
  /** When the epoch began, ISO 8601. */
  since: string | null;
  epoch: string | null;
  /** Bytes per bit of the map. */
  unit: number | null;
  /** Bytes marked now. */
  dirty_bytes: number | null;
  /** Bytes of memory that the map costs. */
  memory: number | null;
  /** It goes on while the daemon does not run. */
  pinned: boolean | null;
  /** Whether tracking went on over the last reboot, or why not; null where there is nothing to say. */
  reboot: string | null;
  /** Why it is not tracked, or why writes may have been missed; null where all is well. */
  why: string | null;
  help: string | null;
}

/** The answer of `POST /v1/tracking/stop`: the devices that are not tracked any more. */
export interface TrackingStoppedDocument {
  stopped: string[];
}

/** One chain of `GET /v1/chains`: what is known of a target. */
export interface ChainDocument {
  device: string;
  uuid: string | null;
  target: string;
  /** A backup has been completed, so that an incremental or a differential can go on from it. */
  complete: boolean;
  /** The target holds an image of no one instant now: a job that wrote to it has not ended well. */
  torn: boolean;
  /** What tracked the device at the last backup; `none`: the next incremental becomes a differential. */
  tracker: string;
  epoch: string | null;
  /** The last completed job. */
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

/** A block device as the predecessor's `completeinfo` described it; empty text and 0 where there is none. */
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
