/** `vault init`: creates a vault and its keys. */
import { Command } from 'commander';
import { parseBytes } from '../../../base/bytes.ts';
import { AgentError } from '../../../base/errors.ts';
import type { VaultPlace } from '../../../vault/opening.ts';
import type { Context, Run } from '../../context.ts';
import type { Io } from '../../io.ts';
import { renderList } from '../../render/table.ts';
import type { InitDocument } from '../../../api/vault/output/keys.ts';
import { untilInterrupted } from '../../vault/interrupt.ts';
import { type VaultValues, addPlaceOptions, addVaultOption, toPath } from '../../vault/options.ts';
import { recoveryText } from '../../vault/render-keys.ts';
import { askNewPassphrase } from '../../vault/secrets.ts';
import { readWanted } from '../../vault/session.ts';
import { waitingHooks } from '../../vault/waiting.ts';

interface Values extends Pick<VaultValues, 'vault' | 'passphrase' | 'passphraseFile'> {
  readonly keyFile?: string | false;
  /** False for --no-recovery-code. */
  readonly recoveryCode: boolean;
  readonly chunkSize?: number;
  readonly packSize?: number;
}

export function init(run: Run): Command {
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
  return addPlaceOptions(command).action(run(initVault));
}

async function initVault(context: Context, self: Command): Promise<number> {
  const [argument] = self.args;
  const values = self.opts<Values>();
  if (argument !== undefined && values.vault !== undefined)
    throw new AgentError('BAD_USAGE', `Two vaults are given: ${argument} and ${values.vault}`);
  const { findVault, createVault } = await import('../../vault/library.ts');
  const { location, context: places } = await readWanted(context.io, self, argument, { key: false });
  const place = await findVault(location, places);
  const passphrase = await newPassphrase(values, place, context.io);
  const deliver = (document: InitDocument): void => context.deliver(document, () => renderInit(document));
  await untilInterrupted(context.io, (signal) =>
    createVault(place, places, { ...values, passphrase, signal, hooks: waitingHooks(context), deliver }),
  );
  return 0;
}

async function newPassphrase(values: Values, place: VaultPlace, io: Io): Promise<string | undefined> {
  if (values.passphrase === true && values.passphraseFile !== undefined)
    throw new AgentError('BAD_USAGE', 'Give one of --passphrase and --passphrase-file');
  if (values.passphrase === true) return askNewPassphrase(io);
  const path = values.passphraseFile ?? place.passphraseFile;
  if (path === undefined) return undefined;
  const { readPassphrase } = await import('../../vault/library.ts');
  return readPassphrase(path);
}

export function renderInit({ location, id, key_file: keyFile, recovery_code: code }: InitDocument): string {
  const entries: [string, string][] = [
    ['vault', location],
    ['id', id],
  ];
  if (keyFile !== null) entries.push(['key file', keyFile]);
  return `${renderList(entries)}${code === null ? '' : recoveryText(code)}`;
}
