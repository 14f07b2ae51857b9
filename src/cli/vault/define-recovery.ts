/** Defines the recovery commands and `forget`; see define.ts. */
import { Command, Option } from 'commander';
import { parseDuration } from '../../base/duration.ts';
import type { Run } from '../context.ts';
import {
  addDeviceOption,
  addRunDirectory,
  addVaultOptions,
  pointArgument,
  toCount,
  toPath,
} from '../vault-options.ts';

export function points(run: Run): Command {
  const command = new Command('points')
    .description(
      'Lists the recovery points of a vault, earliest first. With POINT: shows the details of that ' +
        'point.',
    )
    .argument('[point]', pointArgument[1])
    .option('--device <name>', 'only points with this device: path, UUID or label')
    .option('--machine <name>', 'only points of this machine: host name or machine ID');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./points.ts')).showPoints(context, self)),
  );
}

export function diff(run: Run): Command {
  const command = new Command('diff')
    .description('Shows how much of a device differs between two recovery points, and in which ranges.')
    .argument(...pointArgument)
    .argument('<other>', 'the other point');
  addDeviceOption(command).option(
    '--ranges',
    'list the ranges that differ: offset and length in bytes, one range per line',
  );
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./diff.ts')).showDiff(context, self)),
  );
}

export function restore(run: Run): Command {
  const command = new Command('restore')
    .description(
      'Restores a device of a recovery point to a device, an image file or an NBD export. With ' +
        '--files: restores files and directories to a directory. If the destination holds data, ' +
        '--force must repeat its name. Writes only what differs, then reads it back. If interrupted, ' +
        'run it again to continue.',
    )
    .argument(...pointArgument)
    .argument('[path...]', 'with --files: paths in the filesystem; / restores all of it')
    .option('--to <where>', 'device, file or nbd:// URI; with --files a directory')
    .option('--files', 'restore files with owners, modes, times, attributes, ACLs, links and holes');
  addDeviceOption(command)
    .option('--force <name>', 'overwrite the data on the destination; repeat its name here')
    .addOption(
      new Option('--compare <when>', 'read the destination and write only what differs (auto)').choices([
        'auto',
        'always',
        'never',
      ]),
    )
    .option('--zero-unused', 'write zeros to blocks that the filesystem does not use')
    .option('--salvage', 'restore the rest if the vault has lost data; lost data becomes zeros')
    .option('--no-verify', 'do not read back the written data')
    .option('--partition <number>', 'with --files: partition of a whole disk', toCount('--partition'))
    .option('--overwrite', 'with --files: replace files of the same name in a directory that is not empty');
  return addRunDirectory(addVaultOptions(command)).action(
    run(async (context, self) => (await import('./restore.ts')).restore(context, self)),
  );
}

export function mount(run: Run): Command {
  const command = new Command('mount')
    .description(
      'Mounts a filesystem of a recovery point on a directory, read-only and without copying it. ' +
        'Without arguments: lists the mounts.',
    )
    .argument('[point]', pointArgument[1])
    .argument('[directory]', 'mount point; created if it is missing');
  addDeviceOption(command)
    .option('--partition <number>', 'partition of a whole disk', toCount('--partition'))
    .option('--over', 'allow a mount point, a place where a device was mounted, or the vault itself');
  return addRunDirectory(addVaultOptions(command)).action(
    run(async (context, self) => (await import('./mount.ts')).mount(context, self)),
  );
}

export function umount(run: Run): Command {
  const command = new Command('umount')
    .description('Unmounts a directory that was mounted by mount, and cleans up after crashed mounts.')
    .argument('<directory>', 'mount point, or ID of the mount');
  return addRunDirectory(command).action(
    run(async (context, self) => (await import('./mount.ts')).umount(context, self)),
  );
}

export function exportCommand(run: Run): Command {
  const command = new Command('export')
    .description(
      'Serves a device of a recovery point as an NBD export until Ctrl-C. Prints its URI on the ' +
        'first line.',
    )
    .argument(...pointArgument);
  addDeviceOption(command)
    .option(
      '--listen <address>',
      'path of a socket, or HOST:PORT on loopback (a socket in the run directory)',
    )
    .option('--writable', 'allow writes; they are discarded when the export ends')
    .option(
      '--overlay-dir <path>',
      'with --writable: directory for written data until then (TMPDIR)',
      toPath,
    );
  return addRunDirectory(addVaultOptions(command)).action(
    run(async (context, self) => (await import('./export.ts')).exportPoint(context, self)),
  );
}

export function forget(run: Run): Command {
  const command = new Command('forget')
    .description(
      'Forgets the given recovery points, or all points that no rule keeps. A rule keeps the last ' +
        'point of each of the last N hours (days, …) that have a point, for each machine and set of ' +
        'devices. Run vault prune to free the space.',
    )
    .argument('[point...]', pointArgument[1])
    .option('--keep-last <n>', 'keep the last N points', toCount('--keep-last'))
    .option('--keep-hourly <n>', 'keep the last point of N hours', toCount('--keep-hourly'))
    .option('--keep-daily <n>', 'keep the last point of N days', toCount('--keep-daily'))
    .option('--keep-weekly <n>', 'keep the last point of N weeks', toCount('--keep-weekly'))
    .option('--keep-monthly <n>', 'keep the last point of N months', toCount('--keep-monthly'))
    .option('--keep-yearly <n>', 'keep the last point of N years', toCount('--keep-yearly'))
    .option('--device <name>', 'with rules: only points with this device')
    .option('--machine <name>', 'with rules: only points of this machine')
    .option(
      '--grace <time>',
      'with rules: a point that arrived less than this ago displaces no other (24h); 0 for none',
      (text) => parseDuration(text, '--grace'),
    )
    .option('--trust-times', 'with rules: trust point times that differ from store times, for a copied vault')
    .option('--dry-run', 'only show what would be forgotten')
    .option('--protect', 'instead: protect these points from being forgotten')
    .option('--unprotect', 'instead: remove the protection of these points');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./forget.ts')).forget(context, self)),
  );
}
