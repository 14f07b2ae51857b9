/** The definition and the action of the commands that ask for one change of a running job. */
import { Command } from 'commander';
import type { JobStatus } from '../api/job-status.ts';
import type { Run } from './context.ts';

export interface JobChange {
  /** Name of the command. */
  readonly name: string;
  readonly description: string;
  /** The last part of the route. */
  readonly verb: 'stop' | 'pause' | 'resume';
  /** Printed after the UUID of the job. */
  readonly done: string;
}

export function changeJob(run: Run, { name, description, verb, done }: JobChange): Command {
  return new Command(name)
    .description(description)
    .argument('<job>', 'UUID of the job, or a unique beginning of it (at least 4 characters)')
    .action(
      run(async ({ client, print }, { args: [job = ''] }) => {
        const status = await client.post<JobStatus>(`/v1/jobs/${encodeURIComponent(job)}/${verb}`);
        print(status, () => `${status.uuid} ${done}\n`);
        return 0;
      }),
    );
}
