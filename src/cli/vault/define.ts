/**
 * Defines the vault commands and their options. They work without the daemon. The code of a command is loaded when it
 * runs, so all other commands start as fast as without vaults.
 */
import { Command } from 'commander';
import { parseBytes } from '../../base/bytes.ts';
import type { Run } from '../context.ts';
import { addPlaceOptions, addVaultOption, addVaultOptions, toPath, toShare } from '../vault-options.ts';

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

function init(run: Run): Command {
  const command = new Command('init')
    .description(
      'Creates a vault and its keys: a key file on this machine, a recovery code that is printed ' +
        'once, and a passphrase if you ask for one.',
    )
    .argument('[location]', 'vault:NAME, vault:/path or vault+s3://… (vault:default)');
  addVaultOption(command)
    .option('--key-file <path>', 'key file to use or to create (STATE/vault-keys/ID.key)', toPath)
    .option('--no-key-file', 'create no key file; needs a passphrase')
    .option('--passphrase-file <path>', 'also add the passphrase in this file', toPath)
    .option('--passphrase', 'ask for a passphrase and also add it')
    .option('--no-recovery-code', 'create no recovery code')
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
      'Shows the settings and keys of a vault and, if a key opens it, a summary of its content.',
    ),
  )
    .option(
      '--accept-vault <id>',
      'accept this vault where a different one was seen before, if the key opens it',
    )
    .action(run(async (context, self) => (await import('./info.ts')).showInfo(context, self)));
}

function stats(run: Run): Command {
  return addVaultOptions(
    new Command('stats').description(
      'Shows how much data a vault stores, and the effect of deduplication and compression.',
    ),
  ).action(run(async (context, self) => (await import('./stats.ts')).showStats(context, self)));
}

function check(run: Run): Command {
  const command = new Command('check')
    .description(
      'Checks all packs and points of a vault. Lists damaged and missing data, the points that it ' +
        'affects, and the points that are whole. Changes nothing without --repair.',
    )
    .option('--read-data', 'also decrypt and verify every chunk')
    .option(
      '--sample <share>',
      'with --read-data: check only this share of the packs, like 5%',
      toShare('--sample'),
    )
    .option('--repair', 'store readable data of damaged packs again and condemn those packs; reads all data');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./check.ts')).checkThis(context, self)),
  );
}

function prune(run: Run): Command {
  const command = new Command('prune')
    .description(
      'Deletes data that no recovery point references. Safe to run during backups. If interrupted, ' +
        'run it again to continue.',
    )
    .option('--dry-run', 'only show what would be done')
    .option(
      '--max-waste <share>',
      'rewrite packs of which more than this share is unused (25%)',
      toShare('--max-waste'),
    )
    .option('--allow-damage', 'prune even if it is unknown which data damaged points need');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./prune.ts')).pruneVault(context, self)),
  );
}

function key(run: Run): Command {
  const list = addPlaceOptions(addVaultOption(new Command('list')))
    .description('Lists the keys of a vault. Needs no key.')
    .action(run(async (context, self) => (await import('./key.ts')).showKeys(context, self)));
  const add = new Command('add').description('Adds a key. An existing key must open the vault.');
  addVaultOptions(add)
    .option('--new-passphrase', 'add a passphrase and ask for it')
    .option('--new-passphrase-file <path>', 'add the passphrase in this file', toPath)
    .option('--new-key-file <path>', 'add this key file; created if it is missing', toPath)
    .option('--new-recovery-code', 'add a recovery code, which is printed once')
    .option('--label <text>', 'name of the key')
    .action(run(async (context, self) => (await import('./key.ts')).addNewKey(context, self)));
  const remove = new Command('remove')
    .description(
      'Removes a key, but never the last one. A removed key still opens copies of the vault that ' +
        'were made before.',
    )
    .argument('<key>', 'ID, its beginning (at least 4 digits), or label');
  addVaultOptions(remove).action(
    run(async (context, self) => (await import('./key.ts')).removeOneKey(context, self)),
  );
  const change = new Command('change').description(
    'Replaces the key that opens the vault with a new key of the same kind. Rewrites the key file.',
  );
  addVaultOptions(change)
    .option(
      '--new-passphrase-file <path>',
      'read the new passphrase from this file instead of asking for it',
      toPath,
    )
    .option('--label <text>', 'name of the key')
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
      'Lists active writers and locks. With ID: removes that writer or lock. Use this only if its ' +
        'process is gone for good.',
    )
    .argument('[id]', 'ID of a writer or lock, or its first digits (at least 4)');
  return addVaultOptions(command).action(
    run(async (context, self) => (await import('./unlock.ts')).unlockOne(context, self)),
  );
}
