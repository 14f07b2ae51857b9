/**
 * Reads the key that the options name. Secrets come from files or the terminal, never from arguments, which other
 * users can see.
 */
import { AgentError } from '../../base/errors.ts';
import type { KeyMaterial } from '../../vault/key-material.ts';
import type { Io } from '../io.ts';
import type { VaultValues } from './options.ts';

type KeyValues = Pick<
  VaultValues,
  'keyFile' | 'passphraseFile' | 'passphrase' | 'recoveryCode' | 'recoveryCodeFile'
>;

/** Returns undefined if no key was given. Throws BAD_USAGE if several were given, FILE_ERROR, CANCELLED. */
export async function givenKey(values: KeyValues, io: Io): Promise<KeyMaterial | undefined> {
  const { keyFile, passphraseFile, passphrase, recoveryCode, recoveryCodeFile } = values;
  const given = [keyFile, passphraseFile, passphrase, recoveryCode, recoveryCodeFile];
  if (given.filter((each) => each !== undefined).length > 1)
    throw new AgentError('BAD_USAGE', 'More than one key is given', {
      hint:
        'give one of --key-file, --passphrase-file, --passphrase, --recovery-code-file and ' +
        '--recovery-code',
    });
  const { readPassphrase, readSecret } = await import('./library.ts');
  if (keyFile !== undefined) return { kind: 'file', text: await readSecret(keyFile) };
  if (passphraseFile !== undefined)
    return { kind: 'passphrase', passphrase: await readPassphrase(passphraseFile) };
  if (passphrase === true) return { kind: 'passphrase', passphrase: await io.askSecret('Passphrase') };
  if (recoveryCodeFile !== undefined) return { kind: 'recovery', code: await readSecret(recoveryCodeFile) };
  if (recoveryCode === true) return { kind: 'recovery', code: await io.askSecret('Recovery code') };
  return undefined;
}

/** Asks twice. Throws BAD_USAGE if the two passphrases differ. */
export async function askNewPassphrase(io: Io): Promise<string> {
  const first = await io.askSecret('New passphrase');
  if (first === '') throw new AgentError('BAD_USAGE', 'The passphrase is empty');
  if ((await io.askSecret('Repeat the passphrase')) !== first)
    throw new AgentError('BAD_USAGE', 'The two passphrases differ: nothing was changed');
  return first;
}
