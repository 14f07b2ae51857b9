/** Lists, reads, finds, forgets and protects the recovery points of a vault. */
import { isDeepStrictEqual } from 'node:util';
import { AgentError } from '../../base/errors.ts';
import { isId } from '../ids.ts';
import { withDeletePermission } from '../delete-permission.ts';
import { openDocument, sealDocument } from '../sealed.ts';
import type { StoreOptions } from '../store/object-store.ts';
import type { Vault } from '../vault.ts';
import { type PointFilter, idsBeginningWith, isLatest, latestOf } from './find.ts';
import { type DamagedObject, listKeys, missingAsUndefined, readDocuments } from './objects.ts';
import { type Point, parsePoint } from './point.ts';
import type { StoredTimes } from './times.ts';

export interface PointList {
  /** In order of `finished`, earliest first. */
  readonly points: readonly Point[];
  /** Objects under `points/` that are not valid points of this vault. */
  readonly damaged: readonly DamagedObject[];
  /** When each point arrived in the store, by the store's clock. */
  readonly stored: StoredTimes;
}

/**
 * Returns all points. A caller that deletes data must respect `damaged`, because those points may reference any data.
 */
export async function listPoints(vault: Vault, options: StoreOptions = {}): Promise<PointList> {
  const stored = new Map<string, number>();
  for await (const { key, modified } of vault.store.list('points/', options))
    if (/^points\/[0-9a-f]{32}$/.test(key)) stored.set(idOf(key), modified);
  const keys = [...stored.keys()].sort().map((id) => `points/${id}`);
  const parse = (key: string, document: unknown): Point => parsePoint(idOf(key), document, where(vault, key));
  const { found, damaged } = await readDocuments(vault, keys, parse, options);
  return { points: found.sort(byFinished), damaged, stored };
}

/** Throws POINT_NOT_FOUND, VAULT_DAMAGED, VAULT_TOO_NEW and errors of the store. */
export async function readPoint(vault: Vault, id: string, options: StoreOptions = {}): Promise<Point> {
  if (!isId(id)) throw new RangeError(`"${id}" is not the ID of a recovery point`);
  const key = `points/${id}`;
  const sealed = await vault.store.get(key, options).catch(missingAsUndefined);
  if (sealed === undefined) throw notFound(vault, `recovery point ${id}`);
  return parsePoint(id, openDocument(vault.secrets, key, sealed), where(vault, key));
}

/**
 * Returns whether the vault still has this point, with these maps. After random numbers repeated, another point may have
 * its ID. An unreadable object may still be this point.
 */
export async function hasPoint(
  vault: Vault,
  { id, devices }: Point,
  options: StoreOptions = {},
): Promise<boolean> {
  try {
    return isDeepStrictEqual((await readPoint(vault, id, options)).devices, devices);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    if (error.code === 'POINT_NOT_FOUND') return false;
    if (error.code === 'VAULT_DAMAGED' || error.code === 'VAULT_TOO_NEW') return true;
    throw error;
  }
}

/**
 * Finds the point that a user names: an ID, its first digits (4 or more), `latest`, or `latest:DEVICE` (path, UUID or
 * label). The filter limits the candidates, except for a complete ID. Throws BAD_USAGE, POINT_NOT_FOUND,
 * POINT_AMBIGUOUS and errors of reading.
 */
export async function findPoint(
  vault: Vault,
  text: string,
  filter: PointFilter = {},
  options: StoreOptions = {},
): Promise<Point> {
  if (isLatest(text)) {
    const { points, damaged, stored } = await listPoints(vault, options);
    const latest = latestOf(points, text, filter, { now: Date.now(), stored });
    if (latest !== undefined) return latest;
    throw notFound(vault, `recovery point for ${text}`, damaged.length);
  }
  const keys = await listKeys(vault, 'points/', /^points\/[0-9a-f]{32}$/, options);
  const ids = idsBeginningWith(keys.map(idOf), text);
  const [id, another] = ids;
  if (id === undefined) throw notFound(vault, `recovery point ${text}`);
  if (another !== undefined)
    throw new AgentError(
      'POINT_AMBIGUOUS',
      `${ids.length} recovery points of ${vault.name} begin with ${text}: ${ids.slice(0, 5).join(', ')}`,
      { hint: 'give more digits' },
    );
  return readPoint(vault, id, options);
}

/**
 * Publishes the point. All data that it references must be durable. Returns the bytes of its object. Throws
 * VAULT_OBJECT_EXISTS if another point has this ID. If it throws VAULT_UNREACHABLE, the point may still appear later.
 */
export async function putPoint(vault: Vault, point: Point, options: StoreOptions = {}): Promise<Buffer> {
  const key = `points/${point.id}`;
  // An unreadable point is a bug of the caller and must not look like success.
  parsePoint(point.id, JSON.parse(JSON.stringify(point)), `the recovery point ${point.id} to be written`);
  const sealed = sealDocument(vault.secrets, key, point);
  await vault.store.put(key, sealed, { ...options, isNew: true });
  return sealed;
}

/** Deletes the point that `putPoint` stored, but not another one in its place. Returns false if it is not there. */
export async function takeBackPoint(vault: Vault, id: string, sealed: Buffer): Promise<boolean> {
  const found = await vault.store.get(`points/${id}`).catch(missingAsUndefined);
  if (found?.equals(sealed) !== true) return false;
  await deletePoint(vault, id);
  return true;
}

/** Throws POINT_PROTECTED. Does nothing if the point is gone. */
export async function forgetPoint(vault: Vault, id: string, options: StoreOptions = {}): Promise<void> {
  if (await isProtected(vault, id, options))
    throw new AgentError('POINT_PROTECTED', `The recovery point ${id} of ${vault.name} is protected`, {
      hint: `run dattocli forget --unprotect ${id} to remove the protection`,
    });
  await deletePoint(vault, id, options);
}

/**
 * Deletes the point, then its other objects, even if it is protected. If interrupted, the point is either gone or
 * whole.
 */
export async function deletePoint(vault: Vault, id: string, options: StoreOptions = {}): Promise<void> {
  if (!isId(id)) throw new RangeError(`"${id}" is not the ID of a recovery point`);
  await withDeletePermission('to forget recovery points', () => vault.store.delete(`points/${id}`, options));
  await vault.store.delete(`protected/${id}`, options);
  const checks = await listKeys(vault, `checks/${id}/`, /^checks\/[0-9a-f]{32}\/[0-9a-f]{32}$/, options);
  for (const key of checks) await vault.store.delete(key, options);
}

/** Throws POINT_NOT_FOUND. */
export async function protectPoint(vault: Vault, id: string, options: StoreOptions = {}): Promise<void> {
  if ((await vault.store.head(`points/${id}`, options)) === undefined)
    throw notFound(vault, `recovery point ${id}`);
  await vault.store.put(`protected/${id}`, Buffer.from('\n'), options);
}

export async function unprotectPoint(vault: Vault, id: string, options: StoreOptions = {}): Promise<void> {
  await withDeletePermission('to unprotect', () => vault.store.delete(`protected/${id}`, options));
}

export async function isProtected(vault: Vault, id: string, options: StoreOptions = {}): Promise<boolean> {
  return (await vault.store.head(`protected/${id}`, options)) !== undefined;
}

/** Returns the IDs of protected points. Some of those points may be gone. */
export async function listProtected(vault: Vault, options: StoreOptions = {}): Promise<Set<string>> {
  return new Set((await listKeys(vault, 'protected/', /^protected\/[0-9a-f]{32}$/, options)).map(idOf));
}

function idOf(key: string): string {
  return key.slice(key.indexOf('/') + 1);
}

function where(vault: Vault, key: string): string {
  return `${key} of ${vault.name}`;
}

export function byFinished(a: Point, b: Point): number {
  return Date.parse(a.finished) - Date.parse(b.finished) || (a.id < b.id ? -1 : 1);
}

function notFound(vault: Vault, what: string, damaged = 0): AgentError {
  return new AgentError('POINT_NOT_FOUND', `${vault.name} has no ${what}`, {
    hint:
      damaged === 0
        ? 'run dattocli points to list the points'
        : `${damaged} of its recovery points cannot be read; run dattocli vault check`,
  });
}
