/**
 * The participants of a vault: processes that write, prune or repair, by their objects under `writers/` and `locks/`,
 * and whether they are stale (docs/formats/vault.md, "Stale writers and locks").
 */
import { participant } from '../../api/vault/participant.ts';
import { AgentError } from '../../base/errors.ts';
import { openDocument } from '../sealed.ts';
import type { StoreOptions, StoredObject } from '../store/object-store.ts';
import { readStored } from '../stored.ts';
import type { Vault } from '../vault.ts';
import { type Owner, stateOf } from '../writing/owner.ts';
import { beatContent, staleMark, endMark } from '../writing/writer-session.ts';

export interface Participant {
  readonly id: string;
  /** Undefined if the document cannot be read; then only its age counts. */
  readonly owner: Owner | undefined;
  /** By its own clock, ISO 8601; empty if the document cannot be read. */
  readonly started: string;
  /** `backup` for writers; `prune` or `repair` for locks. */
  readonly what: string;
  /** Time of the last heartbeat by the store's clock, in milliseconds since 1970. */
  readonly lastSign: number;
}

/** Determines whether an owner's process is gone. Tests replace it. */
export type OwnerState = (owner: Owner) => ReturnType<typeof stateOf>;

/** The objects of a writer under `writers/`. */
export interface WriterObjects {
  readonly id: string;
  readonly announced: StoredObject | undefined;
  readonly beat: StoredObject | undefined;
  readonly end: StoredObject | undefined;
}

const hourMs = 3600 * 1000;
const dayMs = 24 * hourMs;

export async function listWriterObjects(vault: Vault, options: StoreOptions = {}): Promise<WriterObjects[]> {
  return collect(vault, 'writers/', options);
}

/** Returns the writers that have not ended. */
export async function listWriters(vault: Vault, options: StoreOptions = {}): Promise<Participant[]> {
  const writers: Participant[] = [];
  for (const objects of await listWriterObjects(vault, options)) {
    if (objects.announced === undefined || objects.end !== undefined) continue;
    const participant = await readParticipant(vault, 'writers/', objects, options);
    if (participant !== undefined) writers.push(participant);
  }
  return writers;
}

/** Returns the active pruners, including this one. */
export async function listLocks(vault: Vault, options: StoreOptions = {}): Promise<Participant[]> {
  const locks: Participant[] = [];
  for (const objects of await collect(vault, 'locks/', options)) {
    const participant = await readParticipant(vault, 'locks/', objects, options);
    if (participant !== undefined) locks.push(participant);
  }
  return locks;
}

/** Returns heartbeats of pruners that arrived after their locks were removed. */
export async function listOrphanedBeats(vault: Vault, options: StoreOptions = {}): Promise<string[]> {
  const objects = await collect(vault, 'locks/', options);
  return objects.flatMap(({ announced, beat }) =>
    announced === undefined && beat !== undefined ? [beat.key] : [],
  );
}

/** `now` is by the store's clock, in milliseconds since 1970. */
export async function isStale(
  { owner, lastSign }: Participant,
  now: number,
  state: OwnerState = stateOf,
): Promise<boolean> {
  const silentMs = now - lastSign;
  if (silentMs > dayMs) return true;
  if (owner === undefined) return false;
  const known = await state(owner);
  return known === 'gone' || (known === 'rebooted' && silentMs > hourMs);
}

/**
 * Returns whether the last heartbeat is in the future because a clock was wrong; it would never become stale. The
 * caller gives the participant a current heartbeat, so it becomes stale after one day of silence.
 */
export function isFromFuture({ lastSign }: Participant, now: number): boolean {
  return lastSign > now + hourMs;
}

/** Puts a current heartbeat for a writer (`writers`) or a lock (`locks`). */
export async function redate(
  vault: Vault,
  folder: 'writers' | 'locks',
  id: string,
  options: StoreOptions = {},
): Promise<void> {
  await vault.store.put(`${folder}/${id}.beat`, beatContent, options);
}

/**
 * Declares a writer stale. If its point exists, the writer has simply ended. Otherwise the mark is kept for a month,
 * because a point that arrives later may lack data that it references.
 */
export async function declareStale(vault: Vault, id: string, options: StoreOptions = {}): Promise<void> {
  const point = await vault.store.head(`points/${id}`, options);
  await vault.store.put(`writers/${id}.end`, point === undefined ? staleMark : endMark, options);
}

/** Returns whether this is the mark of `declareStale` for a writer without a point. */
export function isStaleMark(end: StoredObject | undefined): boolean {
  return end?.size === staleMark.length;
}

async function collect(vault: Vault, prefix: string, options: StoreOptions): Promise<WriterObjects[]> {
  const found = new Map<string, { -readonly [K in keyof WriterObjects]: WriterObjects[K] }>();
  const pattern = /^[a-z]+\/([0-9a-f]{32})(\.beat|\.end)?$/;
  for await (const object of vault.store.list(prefix, options)) {
    const [, id, suffix] = pattern.exec(object.key) ?? [];
    if (id === undefined) continue;
    const entry = found.get(id) ?? { id, announced: undefined, beat: undefined, end: undefined };
    if (suffix === '.beat') entry.beat = object;
    else if (suffix === '.end') entry.end = object;
    else entry.announced = object;
    found.set(id, entry);
  }
  return [...found.values()];
}

async function readParticipant(
  vault: Vault,
  prefix: string,
  { id, announced, beat }: WriterObjects,
  options: StoreOptions,
): Promise<Participant | undefined> {
  if (announced === undefined) return undefined;
  const key = `${prefix}${id}`;
  // Prefer the heartbeat even if it is older, because the store's clock may have been set back.
  const lastSign = (beat ?? announced).modified;
  try {
    const sealed = await vault.store.get(key, options);
    const document = openDocument(vault.secrets, key, sealed);
    const { owner, started, what = 'backup' } = readStored(participant, document, `${key} of ${vault.name}`);
    return { id, owner, started, what, lastSign };
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    if (error.code === 'VAULT_OBJECT_MISSING') return undefined;
    if (error.code !== 'VAULT_DAMAGED') throw error;
    return { id, owner: undefined, started: '', what: '', lastSign };
  }
}

/** Describes it for messages: process, host and start time. */
export function describeParticipant({ owner, started, what }: Participant): string {
  if (owner === undefined) return 'a process whose document cannot be read';
  return `${what} by process ${owner.pid} of ${owner.host}, started ${started}`;
}
