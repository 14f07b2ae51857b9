import type { BackupKind } from '../api/job-status.ts';

/** What kind of backup a device gets. */
export interface BackupPlan {
  readonly kind: BackupKind;
  /** Why it is not what was asked for; null if it is. */
  readonly reason: string | null;
  /**
   * The fingerprints may be older than what the target holds, so the target is read and compared with them before the
   * device is.
   */
  readonly readTarget?: true;
}
