/** `vault`: the commands that create and maintain vaults. They work without the daemon. */
import { Command } from 'commander';
import type { Run } from '../context.ts';
import { check } from './vault/check.ts';
import { info } from './vault/info.ts';
import { init } from './vault/init.ts';
import { key } from './vault/key.ts';
import { prune } from './vault/prune.ts';
import { stats } from './vault/stats.ts';
import { unlock } from './vault/unlock.ts';

export function vault(run: Run): Command {
  return new Command('vault')
    .description(
      'Creates and maintains vaults, which keep recovery points in a directory or an S3 bucket. ' +
        'Needs no daemon.',
    )
    .helpCommand(false)
    .addCommand(init(run))
    .addCommand(info(run))
    .addCommand(stats(run))
    .addCommand(check(run))
    .addCommand(prune(run))
    .addCommand(key(run))
    .addCommand(unlock(run));
}
