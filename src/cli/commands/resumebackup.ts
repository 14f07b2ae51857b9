/** `resumebackup`: resumes a paused job. */
import type { Command } from 'commander';
import { changeJob } from '../change-job.ts';
import type { Run } from '../context.ts';

export function resumeBackup(run: Run): Command {
  return changeJob(run, {
    name: 'resumebackup',
    description: 'Resumes a paused job.',
    verb: 'resume',
    done: 'is resumed',
  });
}
