/** `verify`: compares all of what a target holds with what is known of it. */
import { Command } from 'commander';
import type { StartDocument } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';
import { addPairOptions, PairList } from '../pairs.ts';
import { renderVerified } from '../render/job.ts';
import { runJob } from '../run-job.ts';

export function verify(run: Run): Command {
  const pairs = new PairList();
  const command = new Command('verify').description(
    'Reads all that targets are known to hold and compares it with the fingerprints that the backups left. Writes ' +
      'nothing. Follows the job with a progress bar; Ctrl-C cancels it. Where a target holds something else, the ' +
      'next backup to it is a full.',
  );
  return addPairOptions(command, pairs).action(
    run((context) => {
      const request: StartDocument = { kind: 'verify', devices: pairs.finish() };
      return runJob(context, request, { strict: false, render: renderVerified });
    }),
  );
}
