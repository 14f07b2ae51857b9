import type { WarningCode } from '../base/warning-codes.ts';
import type { JobPhase } from './status.ts';

/** Receives the phases and the warnings of a running job. */
export interface JobReporter {
  phase(phase: JobPhase): void;
  warn(code: WarningCode, message: string, device?: string): void;
}
