import type { BackupKind } from '../api/job-status.ts';

/** The kind of backup that a device gets. */
export interface BackupPlan {
  readonly kind: BackupKind;
  /** Why the kind differs from the one that was requested; null if it does not. */
  readonly reason: string | null;
  /**
   * Set if the fingerprints may be older than the content of the target. The target is then read and compared with them
   * before the device is.
   */
  readonly readTarget?: true;
}
