/** `verify`: what a target holds, compared with what is known of it by the daemon; or a recovery point of a vault. */
import { Command, Option } from 'commander';
import { AgentError } from '../../base/errors.ts';
import type { StartDocument } from '../../daemon/documents.ts';
import type { Context, Run } from '../context.ts';
import { addPairOptions, PairList } from '../pairs.ts';
import { renderVerified } from '../render/job.ts';
import { runJob } from '../run-job.ts';
import { addRunDirectory, addVaultOptions, pointArgument, toShare } from '../vault-options.ts';

export function verify(run: Run): Command {
  const pairs = new PairList();
  const command = new Command('verify')
    .description(
      'With POINT: looks at a recovery point of a vault, at one of three levels, and keeps the result with the point. ' +
        'Needs no daemon. With --device and --target: reads all that targets are known to hold and compares it with ' +
        'the fingerprints that the backups left. Writes nothing. Follows the job with a progress bar; Ctrl-C cancels ' +
        'it. Where a target holds something else, the next backup to it is a full.',
    )
    .argument('[point]', pointArgument[1])
    .addOption(
      new Option(
        '--level <level>',
        'of a point: everything that it names is there; every chunk is read and its name computed again; its ' +
          'filesystems pass their own checkers (read)',
      ).choices(['reachable', 'read', 'filesystem']),
    )
    .option('--sample <share>', 'of a point, level read: only this share, like 5%', toShare('--sample'));
  addPairOptions(
    command,
    pairs,
    'this device and the --target that follows; repeatable; with POINT, a device of it',
  );
  return addRunDirectory(addVaultOptions(command)).action(
    run(async (context, self) => {
      const [point] = self.args;
      if (point === undefined) return verifyTargets(context, self, pairs);
      const device = pairs.onlyDevice();
      return (await import('../vault/verify.ts')).verifyPoint(context, self, point, device);
    }),
  );
}

function verifyTargets(context: Context, self: Command, pairs: PairList): Promise<number> {
  const devices = pairs.finish();
  const { level, sample } = self.opts<{ level?: string; sample?: number }>();
  if (level !== undefined || sample !== undefined)
    throw new AgentError('BAD_USAGE', '--level and --sample are for recovery points, and none is named', {
      hint: 'dattocli verify POINT --level …',
    });
  const request: StartDocument = { kind: 'verify', devices };
  return runJob(context, request, { strict: false, render: renderVerified });
}
