/** The status of a job, by its old path. */
export type { BackupKind, DeviceStatus, JobKind, JobPhase, JobState, JobStatus } from '../api/job-status.ts';
export type { JobWarning, ReadErrorRecord } from '../api/job-status.ts';
