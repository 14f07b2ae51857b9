/** Adding and removing the keys of a vault. */
import { AgentError } from '../base/errors.ts';
import type { KeyMaterial } from './key-material.ts';
import { type KeySlot, type SlotOptions, formatSlot, makeSlot } from './key-slots.ts';
import { asDeleter } from './may-delete.ts';
import type { StoreOptions } from './store/object-store.ts';
import { type KeySlots, readSlots, unlock } from './unlock.ts';
import type { Vault } from './vault.ts';

export type { KeySlots } from './unlock.ts';

/** What a slot says of itself; nothing of it is proven. */
export function listKeys(vault: Pick<Vault, 'store'>, options: StoreOptions = {}): Promise<KeySlots> {
  return readSlots(vault.store, options);
}

/**
 * Adds a key; `present` opens the vault already, since only that gives the master key. Throws VAULT_NO_KEY,
 * VAULT_WRONG_KEY, BAD_USAGE and what the store throws.
 */
export async function addKey(
  vault: Vault,
  present: KeyMaterial,
  added: KeyMaterial,
  options: SlotOptions & StoreOptions = {},
): Promise<KeySlot> {
  const { master } = await unlock(vault.store, vault.id, present, options);
  return putSlot(vault, await makeSlot(master, vault.id, added, options), options);
}

/**
 * Removes a slot. Who knows its key and has a copy of it, or of the master key, still reads the vault. Throws
 * VAULT_NO_KEY where there is none of this id, VAULT_LAST_KEY where no other is left that can be used.
 */
export async function removeKey(vault: Vault, id: string, options: StoreOptions = {}): Promise<void> {
  const { slots, damaged } = await readSlots(vault.store, options);
  if (![...slots, ...damaged].some((each) => each.id === id))
    throw new AgentError('VAULT_NO_KEY', `${vault.name} has no key ${id}`);
  if (!slots.some((each) => each.id !== id))
    throw new AgentError('VAULT_LAST_KEY', `${id} is the last key of ${vault.name}`, {
      hint: 'add another one first; without a key nothing of the vault can be read',
    });
  await asDeleter('to remove a key', () => vault.store.delete(slotKey(id), options));
}

/** Puts a slot back that was removed just now. Throws what the store throws. */
export async function restoreKey(vault: Vault, slot: KeySlot, options: StoreOptions = {}): Promise<void> {
  await putSlot(vault, slot, options);
}

/** The id of the key that a person names by its label, its id or the first digits of it. Throws VAULT_NO_KEY. */
export function findKey({ slots, damaged }: KeySlots, text: string): string {
  const ids = [...slots, ...damaged].map(({ id }) => id);
  const found = new Set([
    ...ids.filter((id) => text.length >= 4 && id.startsWith(text.toLowerCase())),
    ...slots.filter(({ label }) => label !== '' && label === text).map(({ id }) => id),
  ]);
  const [id] = found;
  if (id === undefined)
    throw new AgentError('VAULT_NO_KEY', `No key has the id or label "${text}"`, {
      hint: 'dattocli vault key list shows them',
    });
  if (found.size > 1)
    throw new AgentError('VAULT_NO_KEY', `"${text}" means ${found.size} keys: ${[...found].join(', ')}`, {
      hint: 'give the whole id',
    });
  return id;
}

async function putSlot(vault: Vault, slot: KeySlot, options: StoreOptions): Promise<KeySlot> {
  await vault.store.put(slotKey(slot.id), formatSlot(slot), { ...options, isNew: true });
  return slot;
}

function slotKey(id: string): string {
  return `keys/${id}.json`;
}
