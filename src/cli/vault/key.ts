/** `vault key list|add|remove|change`. */
import type { Command } from 'commander';
import { rm } from 'node:fs/promises';
import { AgentError, errnoCode, toAgentError } from '../../base/errors.ts';
import { makeKeyFile, replaceKeyFile } from '../../vault/key-file.ts';
import { type KeyMaterial, newKeyFileText, newRecoveryCode } from '../../vault/key-material.ts';
import { addKey, findKey, listKeys, removeKey, restoreKey } from '../../vault/keys.ts';
import { findVault, openPlace, readPassphrase, readSecret, storedKey } from '../../vault/opening.ts';
import { unlock } from '../../vault/unlock.ts';
import type { Context } from '../context.ts';
import { exitWithWarnings } from '../outcome.ts';
import { printable } from '../render/table.ts';
import type { Io } from '../io.ts';
import { type KeyChangeDocument, type KeyDocument, type KeyListDocument, keyDocument } from './documents.ts';
import { untilInterrupted } from './interrupt.ts';
import type { VaultValues } from '../vault-options.ts';
import { renderKey, renderKeyList } from './render-vault.ts';
import { askNewPassphrase } from './secrets.ts';
import { type Session, readWanted, withVault } from './session.ts';
import { waitingHooks } from './waiting.ts';

interface Values extends VaultValues {
  readonly newPassphrase?: true;
  readonly newPassphraseFile?: string;
  readonly newKeyFile?: string;
  readonly newRecoveryCode?: true;
  readonly label?: string;
}

/** A new key and where its file is. */
interface NewKey {
  readonly material: KeyMaterial;
  readonly keyFile: string | undefined;
  /** True if the file was created for this key. It is removed if adding the key fails. */
  readonly made: boolean;
}

/** Needs no key. */
export async function showKeys(context: Context, self: Command): Promise<number> {
  const wanted = await readWanted(context.io, self);
  const place = await findVault(wanted.location, wanted.context);
  const { slots, damaged } = await untilInterrupted(context.io, async (signal) => {
    const store = await openPlace(place, { hooks: waitingHooks(context) });
    try {
      return await listKeys({ store }, { signal });
    } finally {
      await store.close();
    }
  });
  const document: KeyListDocument = {
    keys: slots.map(keyDocument),
    damaged: damaged.map(({ id, error }) => ({ id, message: error.message })),
  };
  context.print(document, () => renderKeyList(document));
  return damaged.length > 0 ? 5 : 0;
}

export async function addNewKey(context: Context, self: Command): Promise<number> {
  const values = self.opts<Values>();
  checkChoice(values);
  await withVault(context, self, async (session) => {
    const { vault, signal } = session;
    const { material: present } = await presentKey(session);
    const added = await newKey(values, context.io);
    try {
      const slot = await addKey(vault, present, added.material, { label: values.label, signal });
      const document = changed(keyDocument(slot), null, added);
      await show(context, document, () => removeKey(vault, slot.id));
    } catch (error) {
      if (added.made && added.keyFile !== undefined) await rm(added.keyFile, { force: true });
      throw error;
    }
  });
  return 0;
}

/**
 * Prints the result. A recovery code is stored nowhere else, so if printing fails, `undo` runs and FILE_ERROR is
 * thrown.
 */
async function show(context: Context, document: KeyChangeDocument, undo: () => Promise<void>): Promise<void> {
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

/**
 * Replaces the key that opens the vault with a new one of its kind. If interrupted at any point, one of the two opens
 * the vault. The new key is shown before the old one is removed, because a recovery code is stored nowhere else.
 */
export async function changeThisKey(context: Context, self: Command): Promise<number> {
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
    const document = changed(keyDocument(added), slot.id, { material, keyFile });
    if (!context.json) await show(context, document, () => removeKey(vault, added.id));
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
      await show(context, document, async () => {
        await restoreKey(vault, slot);
        await removeKey(vault, added.id);
      });
    if (failure?.code === 'CANCELLED') throw failure;
    return failure === undefined ? 0 : exitWithWarnings;
  });
}

export async function removeOneKey(context: Context, self: Command): Promise<number> {
  const [text = ''] = self.args;
  const removed = await withVault(context, self, async ({ vault, signal }) => {
    const id = findKey(await listKeys(vault, { signal }), text);
    await removeKey(vault, id, { signal });
    return id;
  });
  context.print({ removed }, () => `key ${removed} is removed\n`);
  return 0;
}

function changed(
  added: KeyDocument,
  removed: string | null,
  { material, keyFile }: Omit<NewKey, 'made'>,
): KeyChangeDocument {
  const code = material.kind === 'recovery' ? material.code : null;
  return { added, removed, warning: null, key_file: keyFile ?? null, recovery_code: code };
}

/** Returns the key that opened the vault, and its file if it has one. */
async function presentKey(
  { wanted, vault }: Session,
  keyFile?: string,
): Promise<{ readonly material: KeyMaterial; readonly path: string | undefined }> {
  if (wanted.key !== undefined) return { material: wanted.key, path: keyFile };
  return storedKey(await findVault(wanted.location, wanted.context), vault.id, wanted.context);
}

/** Returns the text of the file that holds this key. A recovery code has no file. */
function fileText(material: KeyMaterial): string | undefined {
  if (material.kind === 'recovery') return undefined;
  return material.kind === 'file' ? material.text : `${material.passphrase}\n`;
}

function checkChoice({ newPassphrase, newPassphraseFile, newKeyFile, newRecoveryCode: code }: Values): void {
  const given = [newPassphrase, newPassphraseFile, newKeyFile, code].filter((each) => each !== undefined);
  if (given.length !== 1)
    throw new AgentError('BAD_USAGE', `exactly one new key is needed, but ${given.length} are given`, {
      hint: 'give one of --new-passphrase, --new-passphrase-file, --new-key-file and --new-recovery-code',
    });
}

async function newKey(values: Values, io: Io): Promise<NewKey> {
  const { newPassphraseFile, newKeyFile } = values;
  if (newKeyFile !== undefined) {
    const there = await readSecret(newKeyFile).catch((error: unknown) => {
      if (error instanceof AgentError && errnoCode(error.cause) === 'ENOENT') return undefined;
      throw error;
    });
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

async function sameKind(kind: KeyMaterial['kind'], values: Values, io: Io): Promise<KeyMaterial> {
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
