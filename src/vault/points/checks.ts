/** Results of verifications of recovery points: `checks/POINT/CHECK`. */
import { Fields } from '../fields.ts';
import { isId, newId } from '../ids.ts';
import { sealDocument } from '../sealed.ts';
import type { StoreOptions } from '../store/object-store.ts';
import type { Vault } from '../vault.ts';
import { type DamagedObject, listKeys, readDocuments } from './objects.ts';

const levels = ['reachable', 'read', 'filesystem'] as const;
const outcomes = ['whole', 'damaged', 'unfinished'] as const;

export interface PointCheck {
  /** `reachable`: pages and chunks exist; `read`: chunks were opened; `filesystem`: its own checker ran. */
  readonly level: (typeof levels)[number];
  /** When it ended, ISO 8601. */
  readonly at: string;
  /** Share of the chunks that were checked, from 0 to 1. */
  readonly coverage: number;
  readonly outcome: (typeof outcomes)[number];
  /** Result per device. Earlier versions did not record it. */
  readonly devices?: readonly DeviceOutcome[] | undefined;
  /** Text for the user. */
  readonly problems: readonly string[];
  /** Version of the program. */
  readonly agent: string;
}

export interface DeviceOutcome {
  readonly path: string;
  /** Share of the device's chunks that were checked, from 0 to 1. */
  readonly coverage: number;
  readonly outcome: PointCheck['outcome'];
}

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

function parseCheck(document: unknown, where: string): PointCheck {
  const fields = new Fields(document, where);
  return {
    level: fields.choice('level', levels),
    at: fields.time('at'),
    coverage: fields.number('coverage', 0, 1),
    outcome: fields.choice('outcome', outcomes),
    ...(fields.has('devices') ? { devices: fields.list('devices', parseDevice) } : {}),
    problems: fields.values('problems').map(String),
    agent: fields.text('agent'),
  };
}

function parseDevice(fields: Fields): DeviceOutcome {
  return {
    path: fields.text('path'),
    coverage: fields.number('coverage', 0, 1),
    outcome: fields.choice('outcome', outcomes),
  };
}
