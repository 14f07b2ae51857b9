/**
 * Condemned lists: packs that will be deleted and that no new data may reference (docs/formats/vault.md, "Pruning").
 * A list without `.waits` is from a prune that was interrupted after it put the list.
 */
import type * as Type from 'typebox';
import { type Condemned, condemned, condemnedWaits } from '../../api/vault/condemned.ts';
import type { Stored } from '../../api/vault/stored.ts';
import { AgentError } from '../../base/errors.ts';
import { openDocument, sealDocument } from '../sealed.ts';
import type { StoreOptions } from '../store/object-store.ts';
import { readStored } from '../stored.ts';
import type { Vault } from '../vault.ts';

export type CondemnedReason = Condemned['reason'];

export interface CondemnedList {
  readonly id: string;
  readonly reason: CondemnedReason;
  readonly packs: readonly string[];
  /** IDs of the writers that had started before the list was visible; undefined if this was not determined yet. */
  readonly waits: readonly string[] | undefined;
  /** By the store's clock, milliseconds since 1970. */
  readonly modified: number;
}

/** Unreadable objects under `condemned/` are passed to `onDamage`. Without it, VAULT_DAMAGED is thrown. */
export interface ReadListsOptions extends StoreOptions {
  readonly onDamage?: (key: string, error: AgentError) => void;
}

/** Returns all lists, in the order of their IDs. */
export async function readCondemnedLists(
  vault: Vault,
  { onDamage, ...options }: ReadListsOptions = {},
): Promise<CondemnedList[]> {
  const found = new Map<string, { modified?: number; hasWaits: boolean }>();
  for await (const { key, modified } of vault.store.list('condemned/', options)) {
    const match = /^condemned\/([0-9a-f]{32})(\.waits)?$/.exec(key);
    if (match?.[1] === undefined) continue;
    const entry = found.get(match[1]) ?? { hasWaits: false };
    if (match[2] === undefined) entry.modified = modified;
    else entry.hasWaits = true;
    found.set(match[1], entry);
  }
  const lists: CondemnedList[] = [];
  for (const [id, { modified, hasWaits }] of [...found].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (modified === undefined) continue;
    const document = await read(vault, `condemned/${id}`, condemned, onDamage, options);
    if (document === undefined) continue;
    const waits = hasWaits
      ? await read(vault, `condemned/${id}.waits`, condemnedWaits, onDamage, options)
      : undefined;
    lists.push({ id, reason: document.reason, packs: document.packs, waits: waits?.writers, modified });
  }
  return lists;
}

/** Returns the packs of all condemned lists. Throws VAULT_DAMAGED if a list cannot be read. */
export async function readCondemned(vault: Vault, options: StoreOptions = {}): Promise<Set<string>> {
  const lists = await readCondemnedLists(vault, options);
  return new Set(lists.flatMap(({ packs }) => packs));
}

/** When this resolves, writers that start later do not build on these packs. */
export async function putCondemned(
  vault: Vault,
  id: string,
  list: { readonly reason: CondemnedReason; readonly packs: readonly string[] },
  options: StoreOptions = {},
): Promise<void> {
  const key = `condemned/${id}`;
  const document = { format: 1, created: new Date().toISOString(), ...list };
  await vault.store.put(key, sealDocument(vault.secrets, key, document), { ...options, isNew: true });
}

/** `writers` must be listed after the list was put or seen. */
export async function putWaits(
  vault: Vault,
  id: string,
  writers: readonly string[],
  options: StoreOptions = {},
): Promise<void> {
  const key = `condemned/${id}.waits`;
  await vault.store.put(key, sealDocument(vault.secrets, key, { format: 1, writers }), options);
}

/** Returns undefined if the list is gone. Then its packs are deleted, and the index will not find them either. */
async function read<T extends Type.TSchema>(
  vault: Vault,
  key: string,
  schema: T,
  onDamage: ReadListsOptions['onDamage'],
  options: StoreOptions,
): Promise<Stored<T> | undefined> {
  try {
    const sealed = await vault.store.get(key, options);
    return readStored(schema, openDocument(vault.secrets, key, sealed), `${key} of ${vault.name}`);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    if (error.code === 'VAULT_OBJECT_MISSING') return undefined;
    if (error.code !== 'VAULT_DAMAGED') throw error;
    if (onDamage === undefined)
      throw new AgentError('VAULT_DAMAGED', error.message, {
        hint:
          'it is not known which packs it condemns, so nothing is written; run dattocli vault check ' +
          '--repair to remove it',
        cause: error,
      });
    onDamage(key, error);
    return undefined;
  }
}
