/** Code that `vault key add` and `vault key change` share: the present key, and the delivery of the new one. */
import { AgentError, toAgentError } from '../../base/errors.ts';
import type { KeyMaterial } from '../../vault/key-material.ts';
import type { Context } from '../context.ts';
import { renderList } from '../render/table.ts';
import type { KeyChangeDocument, KeyDocument } from '../../api/vault/output/keys.ts';
import { keyText, recoveryText } from './render-keys.ts';
import type { Session } from './session.ts';

/** A new key and where its file is. */
export interface NewKey {
  readonly material: KeyMaterial;
  readonly keyFile: string | undefined;
}

/** Returns the key that opened the vault, and its file if it has one. */
export async function presentKey(
  { wanted, vault }: Session,
  keyFile?: string,
): Promise<{ readonly material: KeyMaterial; readonly path: string | undefined }> {
  if (wanted.key !== undefined) return { material: wanted.key, path: keyFile };
  const { findVault, storedKey } = await import('./library.ts');
  return storedKey(await findVault(wanted.location, wanted.context), vault.id, wanted.context);
}

export function keyChangeDocument(
  added: KeyDocument,
  removed: string | null,
  { material, keyFile }: NewKey,
): KeyChangeDocument {
  const code = material.kind === 'recovery' ? material.code : null;
  return { added, removed, warning: null, key_file: keyFile ?? null, recovery_code: code };
}

/**
 * Prints the result. A recovery code is stored nowhere else, so if printing fails, `undo` runs and FILE_ERROR is
 * thrown.
 */
export async function deliverKeyChange(
  context: Context,
  document: KeyChangeDocument,
  undo: () => Promise<void>,
): Promise<void> {
  const render = (): string => renderKey(document);
  if (document.recovery_code === null) {
    context.print(document, render);
    return;
  }
  try {
    context.deliver(document, render);
  } catch (error) {
    const { code, message, hint } = toAgentError(error);
    const outcome = await undo().then(
      () => 'the keys are unchanged',
      (failure: unknown) =>
        `the key ${document.added.id} was added and not removed: ${toAgentError(failure).message}`,
    );
    throw new AgentError(code, `${message}; ${outcome}`, {
      ...(hint === undefined ? {} : { hint }),
      cause: error,
    });
  }
}

function renderKey({ added, removed, key_file: file, recovery_code: code }: KeyChangeDocument): string {
  const entries: [string, string][] = [[removed === null ? 'added' : 'changed', keyText(added)]];
  if (removed !== null) entries.push(['replaces', removed]);
  if (file !== null) entries.push(['key file', file]);
  return `${renderList(entries)}${code === null ? '' : recoveryText(code)}`;
}
