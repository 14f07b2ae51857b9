/** `vault key`: the commands for the keys of a vault. */
import { Command } from 'commander';
import type { Run } from '../../context.ts';
import { keyAdd } from './key/add.ts';
import { keyChange } from './key/change.ts';
import { keyList } from './key/list.ts';
import { keyRemove } from './key/remove.ts';

export function key(run: Run): Command {
  return new Command('key')
    .description('Lists, adds, removes and changes the keys of a vault.')
    .helpCommand(false)
    .addCommand(keyList(run))
    .addCommand(keyAdd(run))
    .addCommand(keyRemove(run))
    .addCommand(keyChange(run));
}
