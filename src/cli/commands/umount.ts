/** `umount DIR`: unmounts a recovery point. */
import { Command } from 'commander';
import type { Context, Run } from '../context.ts';
import { printable } from '../render/table.ts';
import { addRunDirectory } from '../vault/options.ts';
import { mountDocument, needRoot } from './mount.ts';

export function umount(run: Run): Command {
  const command = new Command('umount')
    .description('Unmounts a directory that was mounted by mount, and cleans up after crashed mounts.')
    .argument('<directory>', 'mount point, or ID of the mount');
  return addRunDirectory(command).action(run(unmount));
}

async function unmount(context: Context, self: Command): Promise<number> {
  const [directory = ''] = self.args;
  const { runDir: runDirectory } = self.opts<{ readonly runDir: string }>();
  needRoot('umount');
  const { clearMounts, unmountImage } = await import('../vault/restore-library.ts');
  const record = await unmountImage(runDirectory, directory);
  await clearMounts(runDirectory);
  const document = mountDocument(record, 'unmounted');
  context.print(document, () => `${printable(record.directory ?? record.id)} is unmounted\n`);
  return 0;
}
