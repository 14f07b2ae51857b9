/** `stopbackup`: cancels a running job. */
import type { Command } from 'commander';
import { changeJob } from '../change-job.ts';
import type { Run } from '../context.ts';

export function stopBackup(run: Run): Command {
  return changeJob(run, {
    name: 'stopbackup',
    description: 'Cancels a running job. Returns when the job has ended and all its filesystems are thawed.',
    verb: 'stop',
    done: 'has ended',
  });
}
