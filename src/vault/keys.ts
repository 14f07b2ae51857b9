/** Lists, adds and removes the keys of a vault. */
import { AgentError } from '../base/errors.ts';
import type { KeyMaterial } from './key-material.ts';
import { type KeySlot, type SlotOptions, formatSlot, makeSlot } from './key-slots.ts';
import { withDeletePermission } from './delete-permission.ts';
import type { StoreOptions } from './store/object-store.ts';
import { type KeySlots, readSlots, unlock } from './unlock.ts';
import type { Vault } from './vault.ts';

export type { KeySlots } from './unlock.ts';

/** Returns the key slots as stored. Nothing in them is verified. */
export function listKeys(vault: Pick<Vault, 'store'>, options: StoreOptions = {}): Promise<KeySlots> {
  return readSlots(vault.store, options);
}

/**
 * Adds a key. `present` must open the vault, because only an existing key gives the master key. Throws VAULT_NO_KEY,
 * VAULT_WRONG_KEY, BAD_USAGE and errors of the store.
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
 * Removes a slot. A person with the removed key and a copy of the slot, or with the master key, can still read the
 * vault. Throws VAULT_NO_KEY if there is no such slot, VAULT_LAST_KEY if no other usable slot is left.
 */
export async function removeKey(vault: Vault, id: string, options: StoreOptions = {}): Promise<void> {
  const { slots, damaged } = await readSlots(vault.store, options);
  if (![...slots, ...damaged].some((each) => each.id === id))
    throw new AgentError('VAULT_NO_KEY', `${vault.name} has no key ${id}`);
  if (!slots.some((each) => each.id !== id))
    throw new AgentError('VAULT_LAST_KEY', `${id} is the last key of ${vault.name}`, {
      hint: 'add another key first; without a key the vault cannot be read',
    });
  await withDeletePermission('to remove a key', () => vault.store.delete(slotKey(id), options));
}

/** Restores a slot that was just removed. Throws errors of the store. */
export async function restoreKey(vault: Vault, slot: KeySlot, options: StoreOptions = {}): Promise<void> {
  await putSlot(vault, slot, options);
}

/** Returns the ID of the key with this label, ID or first digits of an ID. Throws VAULT_NO_KEY. */
export function findKey({ slots, damaged }: KeySlots, text: string): string {
  const ids = [...slots, ...damaged].map(({ id }) => id);
  const found = new Set([
    ...ids.filter((id) => text.length >= 4 && id.startsWith(text.toLowerCase())),
    ...slots.filter(({ label }) => label !== '' && label === text).map(({ id }) => id),
  ]);
  const [id] = found;
  if (id === undefined)
    throw new AgentError('VAULT_NO_KEY', `No key has the id or label "${text}"`, {
      hint: 'run dattocli vault key list to list the keys',
    });
  if (found.size > 1)
    throw new AgentError('VAULT_NO_KEY', `"${text}" matches ${found.size} keys: ${[...found].join(', ')}`, {
      hint: 'give the complete ID',
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
