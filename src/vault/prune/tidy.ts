/**
 * Removes leftovers that only pruners remove (docs/formats/vault.md, "What a crash may leave"): objects of ended
 * writers and of deleted points, and partial files.
 */
import type { StoreOptions } from '../store/object-store.ts';
import type { Vault } from '../vault.ts';
import { type WriterObjects, isStaleMark, listWriterObjects } from './participants.ts';

export interface Tidied {
  /** Writers whose objects are all gone, except for a mark as stale. */
  readonly writers: number;
  /** Checks and protections of deleted points. */
  readonly orphans: number;
  /** Partial files, if the store shows them. */
  readonly temporary: { readonly count: number; readonly bytes: number };
}

/** How long the mark of a stale writer without a point is kept, in milliseconds. */
export const staleMarkMs = 30 * 24 * 3600 * 1000;

/** `now` is by the store's clock, in milliseconds since 1970. */
export async function tidy(vault: Vault, now: number, options: StoreOptions = {}): Promise<Tidied> {
  let writers = 0;
  for (const objects of await listWriterObjects(vault, options))
    if (await tidyWriter(vault, objects, now, options)) writers++;
  await tidyWaits(vault, options);
  return {
    writers,
    orphans: await tidyOrphans(vault, options),
    temporary: await vault.store.cleanTemporary(options),
  };
}

async function tidyWriter(
  { store }: Vault,
  { id, announced, beat, end }: WriterObjects,
  now: number,
  options: StoreOptions,
): Promise<boolean> {
  // A heartbeat that arrived late.
  if (announced === undefined && end === undefined) {
    await store.delete(`writers/${id}.beat`, options);
    return false;
  }
  if (end === undefined) return false;
  // The end mark is deleted last: without it the writer would seem alive, also to itself.
  if (beat !== undefined) await store.delete(`writers/${id}.beat`, options);
  if (announced !== undefined) await store.delete(`writers/${id}`, options);
  if (!isStaleMark(end) || now - end.modified > staleMarkMs) await store.delete(`writers/${id}.end`, options);
  return announced !== undefined;
}

/** `.waits` of lists that are gone: they arrived late. */
async function tidyWaits({ store }: Vault, options: StoreOptions): Promise<void> {
  const waits: string[] = [];
  for await (const { key } of store.list('condemned/', options)) if (key.endsWith('.waits')) waits.push(key);
  for (const key of waits) {
    const list = await store.head(key.slice(0, -'.waits'.length), options);
    if (list === undefined) await store.delete(key, options);
  }
}

async function tidyOrphans({ store }: Vault, options: StoreOptions): Promise<number> {
  const orphans = new Map<string, string[]>();
  for (const prefix of ['checks/', 'protected/'])
    for await (const { key } of store.list(prefix, options)) {
      const point = /^(?:checks\/([0-9a-f]{32})\/[0-9a-f]{32}|protected\/([0-9a-f]{32}))$/.exec(key);
      const id = point?.[1] ?? point?.[2];
      if (id !== undefined) orphans.set(id, [...(orphans.get(id) ?? []), key]);
    }
  for await (const { key } of store.list('points/', options)) orphans.delete(key.slice('points/'.length));
  let count = 0;
  for (const [id, keys] of orphans) {
    // A point whose put arrived late may have appeared since the list.
    if ((await store.head(`points/${id}`, options)) !== undefined) continue;
    for (const key of keys) await store.delete(key, options);
    count += keys.length;
  }
  return count;
}
