/** `verify`: checks a recovery point of a vault, or compares a target with the fingerprints that the daemon has of it. */
import { Command, Option } from 'commander';
import { AgentError } from '../../base/errors.ts';
import type { StartDocument } from '../../api/start.ts';
import type { Context, Run } from '../context.ts';
import { addPairOptions, PairList } from '../pairs.ts';
import { renderVerified } from '../render/job.ts';
import { runJob } from '../run-job.ts';
import { addRunDirectory, addVaultOptions, pointArgument, toShare } from '../vault/options.ts';

export function verify(run: Run): Command {
  const pairs = new PairList();
  const command = new Command('verify')
    .description(
      'With POINT: checks a recovery point of a vault at one of three levels, and stores the result with the point. ' +
        'Needs no daemon. With --device and --target: reads all data that the targets are known to hold, and compares it ' +
        'with the fingerprints that the backups stored. Writes nothing. Follows the job with a progress bar; ' +
        'Ctrl-C cancels it. If a target differs, the next backup to it is a full.',
    )
    .argument('[point]', pointArgument[1])
    .addOption(
      new Option(
        '--level <level>',
        'of a point: check that all data it refers to exists, read every chunk and check it, or run the ' +
          "filesystems' own checkers (read)",
      ).choices(['reachable', 'read', 'filesystem']),
    )
    .option(
      '--sample <share>',
      'of a point, with level read: read only this share, like 5%',
      toShare('--sample'),
    );
  addPairOptions(
    command,
    pairs,
    'a device; its --target follows; repeatable; with POINT: a device of the point',
  );
  return addRunDirectory(addVaultOptions(command)).action(
    run(async (context, self) => {
      const [point] = self.args;
      if (point === undefined) return verifyTargets(context, self, pairs);
      const device = pairs.onlyDevice();
      return (await import('./verify-point.ts')).verifyPoint(context, self, point, device);
    }),
  );
}

function verifyTargets(context: Context, self: Command, pairs: PairList): Promise<number> {
  const devices = pairs.finish();
  const { level, sample } = self.opts<{ level?: string; sample?: number }>();
  if (level !== undefined || sample !== undefined)
    throw new AgentError('BAD_USAGE', '--level and --sample are for recovery points, but no POINT is given', {
      hint: 'run dattocli verify POINT --level …',
    });
  const request: StartDocument = { kind: 'verify', devices };
  return runJob(context, request, { strict: false, render: renderVerified });
}
