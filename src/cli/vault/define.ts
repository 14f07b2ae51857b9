/**
 * The commands of vaults and their options. They work without the daemon. What they do is loaded when one of them is
 * run, so that the others start as quickly as without vaults.
 */
import { Command } from 'commander';
import { parseBytes } from '../../base/bytes.ts';
import type { Run } from '../context.ts';
import { addPlaceOptions, addVaultOption, addVaultOptions, toPath, toShare } from '../vault-options.ts';

export function vault(run: Run): Command {
  return new Command('vault')
    .description(
      'Makes and tends vaults, which keep recovery points in a directory or an S3 bucket. Needs no daemon.',
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

function init(run: Run): Command {
  const command = new Command('init')
    .description(
      'Makes a vault and its keys: a key file on this machine, a recovery code that is printed once, and a ' +
        'passphrase where one is wanted.',
    )
    .argument('[location]', 'vault:NAME, vault:/path or vault+s3://… (vault:default)');
  addVaultOption(command)
    .option('--key-file <path>', 'key file to use or to make (STATE/vault-keys/ID.key)', toPath)
    .option('--no-key-file', 'make none; needs a passphrase')
    .option('--passphrase-file <path>', 'the passphrase in this file opens it, too', toPath)
    .option('--passphrase', 'a passphrase that is asked for opens it, too')
    .option('--no-recovery-code', 'make none')
    .option('--chunk-size <bytes>', 'a power of two from 4K to 1M (64K)', (text) =>
      parseBytes(text, '--chunk-size'),
    )
    .option('--pack-size <bytes>', 'from 1M to 64M (16M)', (text) => parseBytes(text, '--pack-size'));
  return addPlaceOptions(command).action(
    run(async (context, self) => (await import('./init.ts')).initVault(context, self)),
  );
}

function info(run: Run): Command {
  return addVaultOptions(
    new Command('info').description(
      'Shows what a vault is, which keys it has, and, where there is a key, what it holds.',
    ),
  )
    .option('--accept-vault <id>', 'accept this vault at a place where others were seen, if the key opens it')
    .action(run(async (context, self) => (await import('./info.ts')).showInfo(context, self)));
}

function stats(run: Run): Command {
  return addVaultOptions(
    new Command('stats').description('Shows how much a vault holds, and how much of it is needed.'),
  ).action(run(async (context, self) => (await import('./stats.ts')).showStats(context, self)));
}

function check(run: Run): Command {
  const command = new Command('check')
    .description(
      'Looks at all packs and points of a vault: names what is damaged or missing, which points that concerns, ' +
        'and which remain whole. Changes nothing without --repair.',
    )
    .option('--read-data', 'open every chunk, too')
    .option(
      '--sample <share>',
      'with --read-data: only this share of the packs, like 5%',
      toShare('--sample'),
    )
    .option('--repair', 'store anew what can be opened of damaged packs, and condemn those; reads all data');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./check.ts')).checkThis(context, self)),
  );
}

function prune(run: Run): Command {
  const command = new Command('prune')
    .description(
      'Deletes what no recovery point needs. May run beside backups, and may be cut anywhere: the next one goes on.',
    )
    .option('--dry-run', 'only say what would be done')
    .option(
      '--max-waste <share>',
      'packs with more than this of no use are copied (25%)',
      toShare('--max-waste'),
    )
    .option('--allow-damage', 'also where what damaged points need is not known in full');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./prune.ts')).pruneVault(context, self)),
  );
}

function key(run: Run): Command {
  const list = addPlaceOptions(addVaultOption(new Command('list')))
    .description('Lists the keys of a vault. Needs none of them.')
    .action(run(async (context, self) => (await import('./key.ts')).showKeys(context, self)));
  const add = new Command('add').description('Adds a key; another one has to open the vault.');
  addVaultOptions(add)
    .option('--new-passphrase', 'add a passphrase, which is asked for')
    .option('--new-passphrase-file <path>', 'add the passphrase in this file', toPath)
    .option('--new-key-file <path>', 'add this key file; made where it is missing', toPath)
    .option('--new-recovery-code', 'add a recovery code, which is printed once')
    .option('--label <text>', 'what the key is called')
    .action(run(async (context, self) => (await import('./key.ts')).addNewKey(context, self)));
  const remove = new Command('remove')
    .description(
      'Removes a key, but never the last one. Who has kept the key and a copy of the vault still reads that.',
    )
    .argument('<key>', 'id, a beginning of it (4 digits at least), or label');
  addVaultOptions(remove).action(
    run(async (context, self) => (await import('./key.ts')).removeOneKey(context, self)),
  );
  const change = new Command('change').description(
    'Replaces the key that opens the vault by a new one of its kind. A key file is rewritten.',
  );
  addVaultOptions(change)
    .option(
      '--new-passphrase-file <path>',
      'take the new passphrase from this file; otherwise it is asked for',
      toPath,
    )
    .option('--label <text>', 'what the key is called')
    .action(run(async (context, self) => (await import('./key.ts')).changeThisKey(context, self)));
  return new Command('key')
    .description('Lists, adds, removes and changes the keys of a vault.')
    .helpCommand(false)
    .addCommand(list)
    .addCommand(add)
    .addCommand(remove)
    .addCommand(change);
}

function unlock(run: Run): Command {
  const command = new Command('unlock')
    .description(
      'Without ID: shows who writes to, prunes or repairs a vault. With ID: takes that one for dead, which is ' +
        'for those of other machines that are certainly gone.',
    )
    .argument('[id]', 'of a writer or a lock, or a beginning of it (4 digits at least)');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./unlock.ts')).unlockOne(context, self)),
  );
}
