/** `stopbackup`, `pausebackup`, `resumebackup`: one word to a running job. */
import { Command } from 'commander';
import type { JobStatus } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';

function changeJob(run: Run, name: string, description: string, verb: string, done: string): Command {
  return new Command(name)
    .description(description)
    .argument('<job>', 'UUID of the job, or a beginning of it that no other job has (4 characters at least)')
    .action(
      run(async ({ client, print }, { args: [job = ''] }) => {
        const status = await client.post<JobStatus>(`/v1/jobs/${encodeURIComponent(job)}/${verb}`);
        print(status, () => `${status.uuid} ${done}\n`);
        return 0;
      }),
    );
}

export function stopBackup(run: Run): Command {
  return changeJob(
    run,
    'stopbackup',
    'Cancels a running job. Returns when nothing of it runs any more and everything is thawed.',
    'stop',
    'has ended',
  );
}

export function pauseBackup(run: Run): Command {
  return changeJob(run, 'pausebackup', 'Lets a running job rest until resumebackup.', 'pause', 'is paused');
}

export function resumeBackup(run: Run): Command {
  return changeJob(run, 'resumebackup', 'Lets a paused job go on.', 'resume', 'goes on');
}
