/** Starts a job, follows it with a progress bar to its end, and returns the exit code. Ctrl-C cancels the job. */
import { AgentError } from '../base/errors.ts';
import type { JobStatus } from '../api/job-status.ts';
import type { StartDocument } from '../api/start.ts';
import type { Context } from './context.ts';
import { followJob } from './follow.ts';
import { concludeJob } from './outcome.ts';
import { renderWarnings } from './render/job.ts';
import { startProgress } from './render/job-progress.ts';

export async function runJob(
  context: Context,
  request: StartDocument,
  options: { readonly strict: boolean; readonly render: (status: JobStatus) => string },
): Promise<number> {
  const { strict, render } = options;
  const { io, client, json } = context;
  const gone = new AbortController();
  let job: string | undefined;
  let interrupts = 0;
  // The first Ctrl-C cancels the job, also if the daemon has not answered its start yet. The second one stops waiting.
  const cancel = () => {
    if (job !== undefined) client.post(`/v1/jobs/${job}/stop`).catch(() => undefined);
  };
  // With --json, standard error carries only the error object.
  const progress = json ? undefined : await startProgress(io);
  const stopListening = io.onInterrupt(() => {
    if (++interrupts === 1) cancel();
    else gone.abort();
  });
  try {
    job = (await client.post<JobStatus>('/v1/jobs', request, gone.signal)).uuid;
    if (interrupts > 0) cancel();
    if (!json) io.out(`${job}\n`);
    const status = await followJob(client, job, {
      signal: gone.signal,
      onStatus: (now) => progress?.show(now),
    });
    progress?.stop();
    context.print(status, () => `\n${render(status)}`);
    if (!json) io.err(renderWarnings(status));
    return concludeJob(status, io, { json, strict });
  } catch (error) {
    progress?.stop();
    if (!gone.signal.aborted) throw error;
    throw new AgentError('CANCELLED', 'Stopped waiting before the job had ended', {
      hint:
        job === undefined
          ? "run 'dattocli jobs' to see whether the job was started"
          : `run 'dattocli backupstatus ${job}' to see how the job ends`,
    });
  } finally {
    stopListening();
  }
}
