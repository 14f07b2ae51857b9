import type { JobEnvironment, JobOptions } from './job.ts';
import type { JobReporter } from './job-reporter.ts';
import type { BackupKind } from '../api/job-status.ts';

/** The values that all steps of one job share. */
export interface JobContext {
  readonly uuid: string;
  /** The kind of backup that was requested. The kind that each device gets is in its plan. */
  readonly kind: BackupKind;
  readonly options: JobOptions;
  readonly environment: JobEnvironment;
  readonly reporter: JobReporter;
  /** Ends the job. */
  readonly signal: AbortSignal;
}
