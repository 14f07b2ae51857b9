/** `vault key add`: adds a key to a vault. */
import { Command } from 'commander';
import { rm } from 'node:fs/promises';
import { AgentError } from '../../../../base/errors.ts';
import type { Context, Run } from '../../../context.ts';
import type { Io } from '../../../io.ts';
import { keyDocument } from '../../../vault/documents.ts';
import { type NewKey, deliverKeyChange, keyChangeDocument, presentKey } from '../../../vault/key-change.ts';
import { type VaultValues, addVaultOptions, toPath } from '../../../vault/options.ts';
import { askNewPassphrase } from '../../../vault/secrets.ts';
import { withVault } from '../../../vault/session.ts';

interface Values extends VaultValues {
  readonly newPassphrase?: true;
  readonly newPassphraseFile?: string;
  readonly newKeyFile?: string;
  readonly newRecoveryCode?: true;
  readonly label?: string;
}

interface NewKeyFile extends NewKey {
  /** True if the file was created for this key. It is removed if adding the key fails. */
  readonly made: boolean;
}

export function keyAdd(run: Run): Command {
  const command = new Command('add').description('Adds a key. An existing key must open the vault.');
  return addVaultOptions(command)
    .option('--new-passphrase', 'add a passphrase and ask for it')
    .option('--new-passphrase-file <path>', 'add the passphrase in this file', toPath)
    .option('--new-key-file <path>', 'add this key file; created if it is missing', toPath)
    .option('--new-recovery-code', 'add a recovery code, which is printed once')
    .option('--label <text>', 'name of the key')
    .action(run(addNewKey));
}

async function addNewKey(context: Context, self: Command): Promise<number> {
  const values = self.opts<Values>();
  checkChoice(values);
  const { addKey, removeKey } = await import('../../../vault/library.ts');
  await withVault(context, self, async (session) => {
    const { vault, signal } = session;
    const { material: present } = await presentKey(session);
    const added = await newKey(values, context.io);
    try {
      const slot = await addKey(vault, present, added.material, { label: values.label, signal });
      const document = keyChangeDocument(keyDocument(slot), null, added);
      await deliverKeyChange(context, document, () => removeKey(vault, slot.id));
    } catch (error) {
      if (added.made && added.keyFile !== undefined) await rm(added.keyFile, { force: true });
      throw error;
    }
  });
  return 0;
}

function checkChoice({ newPassphrase, newPassphraseFile, newKeyFile, newRecoveryCode: code }: Values): void {
  const given = [newPassphrase, newPassphraseFile, newKeyFile, code].filter((each) => each !== undefined);
  if (given.length !== 1)
    throw new AgentError('BAD_USAGE', `exactly one new key is needed, but ${given.length} are given`, {
      hint: 'give one of --new-passphrase, --new-passphrase-file, --new-key-file and --new-recovery-code',
    });
}

async function newKey(values: Values, io: Io): Promise<NewKeyFile> {
  const { makeKeyFile, newKeyFileText, newRecoveryCode, readPassphrase, readSecretIfThere } =
    await import('../../../vault/library.ts');
  const { newPassphraseFile, newKeyFile } = values;
  if (newKeyFile !== undefined) {
    const there = await readSecretIfThere(newKeyFile);
    const text = there ?? newKeyFileText();
    if (there === undefined) await makeKeyFile(newKeyFile, text);
    return { material: { kind: 'file', text }, keyFile: newKeyFile, made: there === undefined };
  }
  if (values.newRecoveryCode === true)
    return { material: { kind: 'recovery', code: newRecoveryCode() }, keyFile: undefined, made: false };
  const passphrase =
    newPassphraseFile === undefined ? await askNewPassphrase(io) : await readPassphrase(newPassphraseFile);
  return { material: { kind: 'passphrase', passphrase }, keyFile: undefined, made: false };
}
