/** Results of verifications of recovery points: `checks/POINT/CHECK`. */
import { pointCheck, type PointCheckDocument } from '../../api/vault/point-check.ts';
import { isId, newId } from '../ids.ts';
import { sealDocument } from '../sealed.ts';
import { manyStored } from '../stored.ts';
import type { StoreOptions } from '../store/object-store.ts';
import type { Vault } from '../vault.ts';
import { type DamagedObject, listKeys, readDocuments } from './objects.ts';

/** A check with its problems as texts. */
export interface PointCheck extends Omit<PointCheckDocument, 'devices' | 'problems'> {
  readonly devices?: readonly DeviceOutcome[] | undefined;
  /** Texts for the user. */
  readonly problems: readonly string[];
}

export type DeviceOutcome = NonNullable<PointCheckDocument['devices']>[number];

export interface StoredCheck extends PointCheck {
  /** ID of the point. */
  readonly point: string;
}

/** Further problems are counted, not stored. */
const mostProblems = 1000;

export async function putCheck(
  vault: Vault,
  point: string,
  check: PointCheck,
  options: StoreOptions = {},
): Promise<void> {
  if (!isId(point)) throw new RangeError(`"${point}" is not the ID of a recovery point`);
  const key = `checks/${point}/${newId()}`;
  const { level, at, coverage, outcome, devices, agent } = check;
  const more = check.problems.length - mostProblems;
  const problems = more > 0 ? [...check.problems.slice(0, mostProblems), `and ${more} more`] : check.problems;
  const document = { format: 1, level, at, coverage, outcome, devices, problems, agent };
  await vault.store.put(key, sealDocument(vault.secrets, key, document), { ...options, isNew: true });
}

/**
 * Returns the checks of one point, or of all points if none is given, in order of time. The points of some may be
 * gone.
 */
export async function listChecks(
  vault: Vault,
  point?: string,
  options: StoreOptions = {},
): Promise<{ checks: StoredCheck[]; damaged: DamagedObject[] }> {
  const prefix = point === undefined ? 'checks/' : `checks/${point}/`;
  const keys = await listKeys(vault, prefix, /^checks\/[0-9a-f]{32}\/[0-9a-f]{32}$/, options);
  const parse = (key: string, document: unknown): StoredCheck => ({
    point: key.split('/')[1]!,
    ...parseCheck(document, `${key} of ${vault.name}`),
  });
  const { found, damaged } = await readDocuments(vault, keys, parse, options);
  return { checks: found.sort((a, b) => Date.parse(a.at) - Date.parse(b.at)), damaged };
}

const readCheck = manyStored(pointCheck);

function parseCheck(document: unknown, where: string): PointCheck {
  const { problems, ...check } = readCheck(document, where);
  return { ...check, problems: problems.map(String) };
}
