/** `stopbackup`, `pausebackup`, `resumebackup`: one request about a running job. */
import { Command } from 'commander';
import type { JobStatus } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';

function changeJob(run: Run, name: string, description: string, verb: string, done: string): Command {
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

export function stopBackup(run: Run): Command {
  return changeJob(
    run,
    'stopbackup',
    'Cancels a running job. Returns when the job has ended and all its filesystems are thawed.',
    'stop',
    'has ended',
  );
}

export function pauseBackup(run: Run): Command {
  return changeJob(run, 'pausebackup', 'Pauses a running job.', 'pause', 'is paused');
}

export function resumeBackup(run: Run): Command {
  return changeJob(run, 'resumebackup', 'Resumes a paused job.', 'resume', 'is resumed');
}
