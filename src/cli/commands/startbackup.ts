/** `startbackup`: asks the daemon for a backup. With `--wait`, follows the job to its end. */
import { Command } from 'commander';
import { AgentError } from '../../base/errors.ts';
import type { JobKind, JobStatus } from '../../api/job-status.ts';
import type { StartDocument } from '../../api/start.ts';
import type { Context, Run } from '../context.ts';
import { addJobOptions, type JobOptionValues, jobOptionsDocument } from '../job-options.ts';
import { addPairOptions, PairList } from '../pairs.ts';
import { renderDevices } from '../render/job.ts';
import { runJob } from '../run-job.ts';

interface Options extends JobOptionValues {
  full?: true;
  incremental?: true;
  differential?: true;
  wait?: true;
  strict?: true;
}

export function startBackup(run: Run): Command {
  const pairs = new PairList();
  const command = new Command('startbackup')
    .description(
      'Starts a backup of one or more devices. All devices are backed up as of the same instant. Prints the UUID ' +
        'of the job on the first line. Name a device by filesystem UUID, path, mount point, label or partition UUID.',
    )
    .option('-f, --full', 'copy every used block')
    .option('-i, --incremental', 'send the blocks that changed since the last backup to the target')
    .option('-d, --differential', 'read every used block, and send those that differ from the target');
  addPairOptions(
    command,
    pairs,
    'a device; its --target follows; repeatable; without any --target: to vault:default',
  );
  return addJobOptions(command)
    .option('--wait', 'follow the job with a progress bar and exit with its outcome; Ctrl-C cancels it')
    .option('--strict', 'with --wait: warnings make the exit code 1 instead of 5')
    .action(run((context, self) => start(context, self.opts<Options>(), pairs)));
}

async function start(context: Context, options: Options, pairs: PairList): Promise<number> {
  const request: StartDocument = {
    kind: kindOf(options),
    devices: pairs.finishWithDefault(),
    options: jobOptionsDocument(options),
  };
  if (options.wait !== true) {
    const status = await context.client.post<JobStatus>('/v1/jobs', request);
    context.print(status, () => `${status.uuid}\n`);
    return 0;
  }
  return runJob(context, request, { strict: options.strict === true, render: renderDevices });
}

function kindOf(options: Options): JobKind {
  const given = (['full', 'incremental', 'differential'] as const).filter((kind) => options[kind] === true);
  const [kind, ...others] = given;
  if (kind === undefined || others.length > 0)
    throw new AgentError('BAD_USAGE', 'Choose one of --full, --incremental or --differential', {
      hint: 'use --full for the first backup to a target',
    });
  return kind;
}
