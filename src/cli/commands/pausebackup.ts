/** `pausebackup`: pauses a running job. */
import type { Command } from 'commander';
import { changeJob } from '../change-job.ts';
import type { Run } from '../context.ts';

export function pauseBackup(run: Run): Command {
  return changeJob(run, {
    name: 'pausebackup',
    description: 'Pauses a running job.',
    verb: 'pause',
    done: 'is paused',
  });
}
