/**
 * What a job says of itself: the documents of the API (`/v1/jobs`), of `dattocli --json`, and of the job
 * history. Fields are only ever added. Names are snake_case as the predecessor's were.
 */
import type { ErrorDocument } from '../base/errors.ts';
import type { WarningCode } from '../base/warning-codes.ts';

/** `UNKNOWN`: of the history alone, see History.failInterrupted. */
export type JobState = 'NOT_STARTED' | 'IN_PROGRESS' | 'SUCCEEDED' | 'FAILED' | 'CANCELLED' | 'UNKNOWN';

export type JobPhase =
  'preparing' | 'mapping' | 'copying' | 'freezing' | 'frozen' | 'finishing' | 'verifying' | 'done';

export interface JobWarning {
  /** Stable, for scripts (docs/errors.md). */
  readonly code: WarningCode;
  readonly message: string;
  /** The device it is about, where it is about one. */
  readonly device?: string;
}

export interface ReadErrorRecord {
  readonly offset: number;
  readonly length: number;
}

export interface SnapshotStatus {
  /** `GROUP/NAME`. */
  readonly volume: string;
  readonly kind: 'thick' | 'thin';
  /** Bytes in use of `size` bytes when it was last looked at: of its own space, or of its thin pool. */
  readonly used: number;
  readonly size: number;
}

export interface DeviceStatus {
  /** Filesystem UUID, or empty. */
  uuid: string;
  /** `/dev/…`. */
  device: string;
  /** The target's URI, without secrets. */
  target: string;
  filesystem: string;
  /** What was done for this device. */
  kind: JobKind;
  /** Why it is not what was asked for; null where it is. */
  fallback_reason: string | null;
  /** `ebpf`, `blktrace`, `test` or `none`. */
  tracker: string;
  /** Bytes. */
  device_size: number;
  /** Bytes of the used map, once known. */
  used_bytes: number;
  /** Bytes of the device dealt with so far (sent, or made zero at the target). */
  bytes_transferred: number;
  /** Bytes known to be still missing at the target. */
  bytes_unsynced: number;
  /** Of the transferred, bytes that went over the wire as data. */
  bytes_sent: number;
  /** Of the transferred, bytes that were zeros and were not sent as data. */
  bytes_zero: number;
  /** Number of the current pass, from 1. */
  pass: number;
  /** How long the filesystem was frozen for the final pass; null while not known, 0 where no freeze was needed. */
  freeze_ms: number | null;
  /** Bytes read back from the target and compared after the flush. */
  bytes_verified: number;
  /** `verify`: of these, bytes of units that differ. */
  bytes_mismatched: number;
  /** `verify`: bytes of which it is not known what the target should hold, free space among them. */
  bytes_unknown: number;
  /** The temporary snapshot that the image is made from; null where none was taken. */
  snapshot: SnapshotStatus | null;
  /** `--trim`: bytes that are free now, of which the target was told that their space may be freed. */
  bytes_trimmed: number;
  read_errors: ReadErrorRecord[];
  /** Id of the recovery point, where the target is a vault and the job has succeeded; otherwise null. */
  point: string | null;
  /** Bytes that the vault stored for it, compressed; null for other targets. */
  bytes_stored: number | null;
}

export type BackupKind = 'full' | 'incremental' | 'differential';

/** `verify` writes nothing: it compares what the target holds with what is known of it. */
export type JobKind = BackupKind | 'verify';

export interface JobStatus {
  uuid: string;
  /** What was asked for; what each device got is in its own `kind`. */
  kind: JobKind;
  state: JobState;
  phase: JobPhase;
  paused: boolean;
  /** ISO 8601, UTC. */
  created_at: string;
  finished_at: string | null;
  tracker: string;
  /** Bytes per second over the last seconds; 0 while nothing moves. */
  rate: number;
  /** Seconds; null while unknown. */
  seconds_left: number | null;
  warnings: JobWarning[];
  error: ErrorDocument | null;
  devices: DeviceStatus[];
}
