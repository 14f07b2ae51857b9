/** `vault key change`: replaces the key that opens a vault. */
import { Command } from 'commander';
import { rm } from 'node:fs/promises';
import { AgentError, toAgentError } from '../../../../base/errors.ts';
import type { KeyMaterial } from '../../../../vault/key-material.ts';
import type { Context, Run } from '../../../context.ts';
import type { Io } from '../../../io.ts';
import { exitWithWarnings } from '../../../outcome.ts';
import { printable } from '../../../render/table.ts';
import { keyDocument } from '../../../vault/documents.ts';
import { deliverKeyChange, keyChangeDocument, presentKey } from '../../../vault/key-change.ts';
import { type VaultValues, addVaultOptions, toPath } from '../../../vault/options.ts';
import { askNewPassphrase } from '../../../vault/secrets.ts';
import { withVault } from '../../../vault/session.ts';

interface Values extends VaultValues {
  readonly newPassphraseFile?: string;
  readonly label?: string;
}

export function keyChange(run: Run): Command {
  const command = new Command('change').description(
    'Replaces the key that opens the vault with a new key of the same kind. Rewrites the key file.',
  );
  return addVaultOptions(command)
    .option(
      '--new-passphrase-file <path>',
      'read the new passphrase from this file instead of asking for it',
      toPath,
    )
    .option('--label <text>', 'name of the key')
    .action(run(changeThisKey));
}

/**
 * Replaces the key that opens the vault with a new one of its kind. If interrupted at any point, one of the two opens
 * the vault. The new key is shown before the old one is removed, because a recovery code is stored nowhere else.
 */
async function changeThisKey(context: Context, self: Command): Promise<number> {
  const { addKey, removeKey, replaceKeyFile, restoreKey, unlock } = await import('../../../vault/library.ts');
  const values = self.opts<Values>();
  return withVault(context, self, async (session) => {
    const { vault, signal } = session;
    const present = await presentKey(session, values.keyFile);
    const { slot } = await unlock(vault.store, vault.id, present.material, { signal });
    const material = await sameKind(present.material.kind, values, context.io);
    const label = values.label ?? slot.label;
    // The new file is written first, so that each slot always has a file that opens it.
    const draft = `${present.path ?? ''}.next`;
    const text = fileText(material);
    const rewrites = present.path !== undefined && text !== undefined;
    if (rewrites) await replaceKeyFile(draft, text);
    const added = await addKey(vault, present.material, material, { label, signal });
    if (rewrites) {
      await replaceKeyFile(present.path, text);
      await rm(draft, { force: true });
    }
    const keyFile = rewrites ? present.path : undefined;
    const document = keyChangeDocument(keyDocument(added), slot.id, { material, keyFile });
    if (!context.json) await deliverKeyChange(context, document, () => removeKey(vault, added.id));
    const failure = await removeKey(vault, slot.id, { signal }).then(
      () => undefined,
      (error: unknown) => toAgentError(error),
    );
    if (failure !== undefined) {
      const { message, hint = '' } = failure;
      document.removed = null;
      document.warning = `the new key opens the vault, but the old key (${slot.id}) may still open it: ${message}`;
      const help = hint === '' ? '' : ` (${hint})`;
      if (!context.json) context.io.err(`warning: ${printable(document.warning)}${printable(help)}\n`);
    }
    // The JSON document reports the removal too, so it is printed last. If printing it fails, the old key is
    // restored.
    if (context.json)
      await deliverKeyChange(context, document, async () => {
        await restoreKey(vault, slot);
        await removeKey(vault, added.id);
      });
    if (failure?.code === 'CANCELLED') throw failure;
    return failure === undefined ? 0 : exitWithWarnings;
  });
}

/** Returns the text of the file that holds this key. A recovery code has no file. */
function fileText(material: KeyMaterial): string | undefined {
  if (material.kind === 'recovery') return undefined;
  return material.kind === 'file' ? material.text : `${material.passphrase}\n`;
}

async function sameKind(kind: KeyMaterial['kind'], values: Values, io: Io): Promise<KeyMaterial> {
  const { newKeyFileText, newRecoveryCode, readPassphrase } = await import('../../../vault/library.ts');
  const { newPassphraseFile } = values;
  if (kind !== 'passphrase' && newPassphraseFile !== undefined)
    throw new AgentError('BAD_USAGE', 'The key that opens the vault is not a passphrase', {
      hint: 'vault key change creates a key of the same kind; for another kind, run dattocli vault key add',
    });
  switch (kind) {
    case 'file':
      return { kind, text: newKeyFileText() };
    case 'recovery':
      return { kind, code: newRecoveryCode() };
    case 'passphrase':
      return {
        kind,
        passphrase:
          newPassphraseFile === undefined
            ? await askNewPassphrase(io)
            : await readPassphrase(newPassphraseFile),
      };
  }
}
