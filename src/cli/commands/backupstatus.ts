/** `backupstatus`: shows the status of a job, once or until the job ends. */
import { Command } from 'commander';
import { AgentError } from '../../base/errors.ts';
import type { JobStatus } from '../../api/job-status.ts';
import type { Client } from '../client.ts';
import type { Context, Run } from '../context.ts';
import { followJob } from '../follow.ts';
import { concludeJob } from '../outcome.ts';
import { renderJob } from '../render/job.ts';
import { startProgress } from '../render/job-progress.ts';

interface Options {
  follow?: true;
  strict?: true;
}

export function backupStatus(run: Run): Command {
  return new Command('backupstatus')
    .description('Shows the status of a job. Without JOB: of the newest running job, or else of the newest.')
    .argument('[job]', 'UUID of the job, or a unique beginning of it (at least 4 characters)')
    .option('--follow', 'follow the job and exit with its outcome; Ctrl-C leaves it running')
    .option('--strict', 'with --follow: warnings make the exit code 1 instead of 5')
    .action(
      run(async (context, self) => {
        const options = self.opts<Options>();
        const status = await find(context.client, self.args[0]);
        if (options.follow === true) return follow(context, status, options.strict === true);
        context.print(status, () => renderJob(status));
        return 0;
      }),
    );
}

async function find(client: Client, job: string | undefined): Promise<JobStatus> {
  if (job !== undefined) return client.get<JobStatus>(`/v1/jobs/${encodeURIComponent(job)}`);
  const jobs = await client.get<JobStatus[]>('/v1/jobs');
  const found = jobs.find(({ state }) => state === 'IN_PROGRESS') ?? jobs[0];
  if (found === undefined)
    throw new AgentError('JOB_NOT_FOUND', 'No job has run yet', {
      hint: "start one with 'dattocli startbackup'",
    });
  return found;
}

async function follow(context: Context, { uuid }: JobStatus, strict: boolean): Promise<number> {
  const { io, json } = context;
  const progress = json ? undefined : await startProgress(io);
  const onStatus = (now: JobStatus) => {
    if (progress === undefined) context.print(now, () => '');
    else progress.show(now);
  };
  try {
    const status = await followJob(context.client, uuid, { onStatus });
    progress?.stop();
    if (!json) io.out(renderJob(status));
    return concludeJob(status, io, { json, strict });
  } finally {
    progress?.stop();
  }
}
