/** `startbackup`: asks the daemon for a backup; with `--wait` follows it to its end. */
import { Command, Option } from 'commander';
import { AgentError } from '../../base/errors.ts';
import type { JobKind, JobStatus, StartDocument } from '../../daemon/documents.ts';
import type { Context, Run } from '../context.ts';
import { followJob } from '../follow.ts';
import { addJobOptions, type JobOptionValues, jobOptionsDocument } from '../job-options.ts';
import { concludeJob } from '../outcome.ts';
import { PairList } from '../pairs.ts';
import { renderDevices, renderWarnings } from '../render/job.ts';
import { startProgress } from '../render/progress.ts';

interface Options extends JobOptionValues {
  full?: true;
  incremental?: true;
  differential?: true;
  wait?: true;
  strict?: true;
}

export function startBackup(run: Run): Command {
  const pairs = new PairList();
  const keep = (add: (value: string) => void) => (value: string) => {
    add(value);
    return value;
  };
  const command = new Command('startbackup')
    .description(
      'Starts a backup of one or more devices, which end at one instant. Prints the UUID of the job on the ' +
        'first line. A device is named by filesystem UUID, path, mount point, label or partition UUID.',
    )
    .option('-f, --full', 'copy every used block')
    .option('-i, --incremental', 'send what was written since the last backup to the same target')
    .option('-d, --differential', 'read every used block, and send those that the target has otherwise')
    .addOption(
      new Option(
        '--device-pair <DEVICE HOST PORT>',
        'back DEVICE up to the NBD server at HOST and PORT; repeatable',
      ).argParser(keep((value) => pairs.addPair(value))),
    )
    .addOption(
      new Option('--vector <DEVICE HOST PORT>', 'the same as --device-pair').argParser(
        keep((value) => pairs.addPair(value)),
      ),
    )
    .option(
      '--device <name>',
      'back this device up to the --target that follows; repeatable',
      keep((value) => pairs.addDevice(value)),
    )
    .option(
      '--target <uri>',
      'nbd://, nbds://, nbd+unix://, nbds+unix://, or the path of a file or device',
      keep((value) => pairs.addTarget(value)),
    );
  return addJobOptions(command)
    .option('--wait', 'follow the job with a progress bar and exit with its outcome; Ctrl-C cancels it')
    .option('--strict', 'with --wait: warnings make the exit code 1 instead of 5')
    .action(run((context, self) => start(context, self.opts<Options>(), pairs)));
}

async function start(context: Context, options: Options, pairs: PairList): Promise<number> {
  const request: StartDocument = {
    kind: kindOf(options),
    devices: pairs.finish(),
    options: jobOptionsDocument(options),
  };
  if (options.wait !== true) {
    const status = await context.client.post<JobStatus>('/v1/jobs', request);
    context.print(status, () => `${status.uuid}\n`);
    return 0;
  }
  return waitFor(context, request, options.strict === true);
}

function kindOf(options: Options): JobKind {
  const given = (['full', 'incremental', 'differential'] as const).filter((kind) => options[kind] === true);
  const [kind, ...others] = given;
  if (kind === undefined || others.length > 0)
    throw new AgentError('BAD_USAGE', 'Say one of --full, --incremental and --differential', {
      hint: 'the first backup to a target is a --full',
    });
  return kind;
}

async function waitFor(context: Context, request: StartDocument, strict: boolean): Promise<number> {
  const { io, client, json } = context;
  const gone = new AbortController();
  let job: string | undefined;
  let interrupts = 0;
  // The first Ctrl-C ends the job, be it that its start is not answered yet; the second does not wait for that.
  const cancel = () => {
    if (job !== undefined) client.post(`/v1/jobs/${job}/stop`).catch(() => undefined);
  };
  // Under --json standard error is for the error object alone.
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
    context.print(status, () => `\n${renderDevices(status)}`);
    if (!json) io.err(renderWarnings(status));
    return concludeJob(status, io, { json, strict });
  } catch (error) {
    progress?.stop();
    if (!gone.signal.aborted) throw error;
    throw new AgentError('CANCELLED', 'Left before the end of the job was known', {
      hint:
        job === undefined
          ? "'dattocli jobs' shows whether it was started"
          : `see 'dattocli backupstatus ${job}'`,
    });
  } finally {
    stopListening();
  }
}
