/** The exit code for the outcome of a job (docs/cli.md). */
import { AgentError } from '../base/errors.ts';
import { reportError } from '../base/report.ts';
import type { JobStatus } from '../api/job-status.ts';
import type { Io } from './io.ts';

export const exitWithWarnings = 5;

/** Reports on standard error why the job did not succeed. Returns the exit code. */
export function concludeJob(
  status: JobStatus,
  io: Pick<Io, 'err'>,
  options: { json: boolean; strict: boolean },
): number {
  if (status.state === 'SUCCEEDED') {
    if (status.warnings.length === 0) return 0;
    return options.strict ? 1 : exitWithWarnings;
  }
  const error =
    status.error === null
      ? new AgentError('INTERNAL', `The job ended as ${status.state} without a reason`)
      : AgentError.fromDocument(status.error);
  io.err(`${reportError('dattocli', error, options).line}\n`);
  return status.state === 'CANCELLED' ? 4 : 1;
}
