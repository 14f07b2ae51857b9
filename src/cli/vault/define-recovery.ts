/** The commands that get things back, and `forget`; see define.ts. */
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
    .description('Lists the recovery points of a vault, the earliest first; with POINT, all about that one.')
    .argument('[point]', pointArgument[1])
    .option('--device <name>', 'only points with this device: path, UUID or label')
    .option('--machine <name>', 'only points of this machine: host name or machine id');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./points.ts')).showPoints(context, self)),
  );
}

export function diff(run: Run): Command {
  const command = new Command('diff')
    .description('Shows how much of a device differs between two recovery points, and where.')
    .argument(...pointArgument)
    .argument('<other>', 'the other point');
  addDeviceOption(command).option('--ranges', 'list where: offset and length in bytes, a line a range');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./diff.ts')).showDiff(context, self)),
  );
}

export function restore(run: Run): Command {
  const command = new Command('restore')
    .description(
      'Restores a device of a recovery point to a device, an image file or an NBD export; or, with --files, files ' +
        'and directories of it to a directory. A destination that holds something is refused unless its name is ' +
        'typed out again with --force. Only what differs is written, and it is read back. Run again after a cut, ' +
        'it goes on.',
    )
    .argument(...pointArgument)
    .argument('[path...]', 'with --files: paths within the filesystem; / is all of it')
    .option('--to <where>', 'device, file or nbd:// URI; with --files a directory')
    .option('--files', 'restore files, with owners, modes, times, attributes, ACLs, links and holes');
  addDeviceOption(command)
    .option('--force <name>', 'the name of the destination once more: what is on it may go')
    .addOption(
      new Option('--compare <when>', 'read what is there and write what differs (auto)').choices([
        'auto',
        'always',
        'never',
      ]),
    )
    .option('--zero-unused', 'make zero what the filesystem does not use, also where that takes writing')
    .option('--salvage', 'what the vault has lost becomes zeros, and the rest is restored')
    .option('--no-verify', 'do not read back what was written')
    .option('--partition <number>', 'with --files: of a whole disk, this partition', toCount('--partition'))
    .option('--overwrite', 'with --files: replace what has the same name in a directory that is not empty');
  return addRunDirectory(addVaultOptions(command)).action(
    run(async (context, self) => (await import('./restore.ts')).restore(context, self)),
  );
}

export function mount(run: Run): Command {
  const command = new Command('mount')
    .description(
      'Mounts a filesystem of a recovery point on a directory, read-only; nothing is copied. Without arguments: ' +
        'lists what is mounted.',
    )
    .argument('[point]', pointArgument[1])
    .argument('[directory]', 'made where it is missing');
  addDeviceOption(command)
    .option('--partition <number>', 'of a whole disk, this partition', toCount('--partition'))
    .option('--over', 'also over a mount point, the place of a device, or the vault itself');
  return addRunDirectory(addVaultOptions(command)).action(
    run(async (context, self) => (await import('./mount.ts')).mount(context, self)),
  );
}

export function umount(run: Run): Command {
  const command = new Command('umount')
    .description('Unmounts what mount has mounted, and clears away what a crash has left of it.')
    .argument('<directory>', 'where it is mounted, or the id of the mount');
  return addRunDirectory(command).action(
    run(async (context, self) => (await import('./mount.ts')).umount(context, self)),
  );
}

export function exportCommand(run: Run): Command {
  const command = new Command('export')
    .description(
      'Serves a device of a recovery point as an NBD export until Ctrl-C. Prints its URI on the first line.',
    )
    .argument(...pointArgument);
  addDeviceOption(command)
    .option(
      '--listen <address>',
      'path of a socket, or HOST:PORT on loopback (a socket in the run directory)',
    )
    .option('--writable', 'it can be written; what is written is forgotten at the end')
    .option('--overlay-dir <path>', 'with --writable: where that is kept meanwhile (TMPDIR)', toPath);
  return addRunDirectory(addVaultOptions(command)).action(
    run(async (context, self) => (await import('./export.ts')).exportPoint(context, self)),
  );
}

export function forget(run: Run): Command {
  const command = new Command('forget')
    .description(
      'Forgets recovery points: those that are named, or those that no rule keeps. Each rule keeps the last point of ' +
        'each of the last N hours (days, …) that have one, for each set of devices of a machine. vault prune then ' +
        'returns the space.',
    )
    .argument('[point...]', pointArgument[1])
    .option('--keep-last <n>', 'keep the last N', toCount('--keep-last'))
    .option('--keep-hourly <n>', 'of N hours', toCount('--keep-hourly'))
    .option('--keep-daily <n>', 'of N days', toCount('--keep-daily'))
    .option('--keep-weekly <n>', 'of N weeks', toCount('--keep-weekly'))
    .option('--keep-monthly <n>', 'of N months', toCount('--keep-monthly'))
    .option('--keep-yearly <n>', 'of N years', toCount('--keep-yearly'))
    .option('--device <name>', 'with rules: only points with this device')
    .option('--machine <name>', 'with rules: only points of this machine')
    .option(
      '--grace <time>',
      'with rules: points that are in the vault for less displace no others (24h); 0 for none',
      (text) => parseDuration(text, '--grace'),
    )
    .option(
      '--trust-times',
      'with rules: also believe times far from those of the store, if the vault was copied',
    )
    .option('--dry-run', 'only say what would be forgotten')
    .option('--protect', 'instead: protect these points from being forgotten')
    .option('--unprotect', 'instead: lift that');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./forget.ts')).forget(context, self)),
  );
}
