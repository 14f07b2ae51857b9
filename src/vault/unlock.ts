/** Reads the key slots of a vault, and finds the slot that given key material opens. */
import { AgentError } from '../base/errors.ts';
import { longestClearObject } from './config.ts';
import { isId } from './ids.ts';
import type { KeyMaterial } from './key-material.ts';
import { type KeySlot, openSlot, parseSlot } from './key-slots.ts';
import type { ObjectStore, StoreOptions } from './store/object-store.ts';

export interface KeySlots {
  /** In order of creation. */
  readonly slots: readonly KeySlot[];
  readonly damaged: readonly { readonly id: string; readonly error: AgentError }[];
}

const kinds = { passphrase: 'passphrase', file: 'key file', recovery: 'recovery code' } as const;

/** Throws only errors of the store. */
export async function readSlots(store: ObjectStore, options: StoreOptions = {}): Promise<KeySlots> {
  const slots: KeySlot[] = [];
  const damaged: { id: string; error: AgentError }[] = [];
  for await (const { key } of store.list('keys/', options)) {
    const id = /^keys\/(.*)\.json$/.exec(key)?.[1];
    if (id === undefined || !isId(id)) continue;
    try {
      const text = await store.get(key, { ...options, length: longestClearObject });
      slots.push(parseSlot(id, text, `${key} of ${store.name}`));
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      // Removed in the meantime.
      if (error.code === 'VAULT_OBJECT_MISSING') continue;
      if (error.code !== 'VAULT_DAMAGED' && error.code !== 'VAULT_TOO_NEW') throw error;
      damaged.push({ id, error });
    }
  }
  slots.sort((a, b) => a.created.localeCompare(b.created) || a.id.localeCompare(b.id));
  return { slots, damaged };
}

/** Throws VAULT_NO_KEY, VAULT_WRONG_KEY, BAD_USAGE for invalid material, and errors of the store. */
export async function unlock(
  store: ObjectStore,
  vaultId: string,
  material: KeyMaterial,
  options: StoreOptions = {},
): Promise<{ master: Buffer; slot: KeySlot }> {
  const { slots, damaged } = await readSlots(store, options);
  const fitting = slots.filter(({ kind }) => kind === material.kind);
  for (const slot of fitting) {
    options.signal?.throwIfAborted();
    const master = await openSlot(slot, vaultId, material);
    if (master !== undefined) return { master, slot };
  }
  const what = kinds[material.kind];
  const [first] = damaged;
  const hint =
    first === undefined
      ? 'try another key; run dattocli vault key list to list the keys'
      : `it may belong to a slot that cannot be used: ${first.error.message}`;
  if (fitting.length === 0)
    throw new AgentError('VAULT_NO_KEY', `${store.name} has no key slot for a ${what}`, {
      hint:
        slots.length === 0
          ? hint
          : `use one of its keys: ${[...new Set(slots.map(({ kind }) => kinds[kind]))].join(', ')}`,
    });
  throw new AgentError(
    'VAULT_WRONG_KEY',
    `This ${what} opens none of ${fitting.length} key slots of ${store.name}`,
    {
      hint,
    },
  );
}
