import type { WarningCode } from '../base/warning-codes.ts';
import type { JobPhase, JobWarning } from '../api/job-status.ts';

/** Receives the phases and the warnings of a running job. */
export interface JobReporter {
  phase(phase: JobPhase): void;
  /** `device`: path of the device that the warning is about. */
  warn(code: WarningCode, message: string, device?: string): void;
  /** All warnings so far, including those of the preparation. */
  readonly warnings: readonly JobWarning[];
}

/** Reports nothing. For steps that the job repeats later and reports then. */
export const silentReporter: JobReporter = {
  phase: () => undefined,
  warn: () => undefined,
  warnings: [],
};
