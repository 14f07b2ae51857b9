/**
 * Which recovery points to keep and which to forget; pure. Each rule keeps, of the last N hours (days, …) that have a
 * point at all, the last point of each. So nothing is forgotten because time passes without backups.
 *
 * Times come from the writers' clocks, and clocks are wrong at times. A time that cannot be right (later than now,
 * earlier than the vault) counts for no rule and its point is kept; otherwise one point of the year 2099 would take the
 * place of a good one for decades. `now` serves for that alone, so a wrong clock here forgets nothing more.
 */
import { AgentError } from '../../base/errors.ts';
import type { Point } from './point.ts';
import { Calendar, type Period } from './calendar.ts';

/** How many of each to keep; absent or 0: the rule keeps nothing. Infinity: all. */
export interface RetentionRules {
  /** The last ones, whatever their times. */
  readonly last?: number;
  readonly hourly?: number;
  readonly daily?: number;
  /** Weeks from Monday on. */
  readonly weekly?: number;
  readonly monthly?: number;
  readonly yearly?: number;
}

export interface RetentionOptions {
  /** Milliseconds since 1970. */
  readonly now: number;
  /** Where hours and days begin: an IANA name. Default: this machine's. */
  readonly timeZone?: string | undefined;
  /** When the vault was made; milliseconds since 1970. */
  readonly vaultCreated?: number | undefined;
  /** Ids. They count like any other, and are kept in any case. */
  readonly protected?: ReadonlySet<string> | undefined;
  /** Ids of points that a check found damaged. They take the place of no whole one; only by name they are forgotten. */
  readonly damaged?: ReadonlySet<string> | undefined;
}

export interface Kept {
  readonly point: Point;
  /** For people: `last 2`, `daily 3 (2024-05-01)`, `protected`, … At least one. */
  readonly reasons: readonly string[];
}

/** The points of one set of devices of one machine, each by itself. */
export interface RetentionGroup {
  readonly machine: string;
  readonly devices: readonly string[];
  /** The latest first. */
  readonly keep: readonly Kept[];
  readonly forget: readonly Point[];
}

const periods = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const satisfies readonly Period[];
/** Two machines' clocks may differ by this. */
const tolerance = 15 * 60 * 1000;

/** Throws BAD_USAGE where no rule would keep anything, or a number is not one. */
export function choosePoints(
  points: readonly Point[],
  rules: RetentionRules,
  options: RetentionOptions,
): RetentionGroup[] {
  checkRules(rules);
  const calendar = new Calendar(options.timeZone);
  const groups = new Map<string, Point[]>();
  for (const point of points) {
    const key = groupOf(point);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [point]);
    else group.push(point);
  }
  return [...groups.values()].map((group) => chooseOfGroup(group, rules, options, calendar));
}

function checkRules(rules: RetentionRules): void {
  const counts = [rules.last, ...periods.map((period) => rules[period])].filter((each) => each !== undefined);
  for (const count of counts)
    if (count !== Number.POSITIVE_INFINITY && !(Number.isSafeInteger(count) && count >= 0))
      throw new AgentError('BAD_USAGE', `${count} is no number of recovery points to keep`);
  if (!counts.some((count) => count > 0))
    throw new AgentError('BAD_USAGE', 'No rule keeps anything: every recovery point would be forgotten', {
      hint: 'say what to keep, or name the points to forget',
    });
}

/**
 * Machines by id and name: clones share an id, and a machine that got another name only keeps more. Devices by what
 * stays when the kernel numbers disks in another order.
 */
function groupOf({ machine, devices }: Point): string {
  return JSON.stringify([machine.id, machine.name, devices.map(identityOf).sort()]);
}

function identityOf({ filesystem, partition, path }: Point['devices'][number]): string {
  if (filesystem !== null && filesystem.uuid !== '') return filesystem.uuid;
  return partition !== null && partition.uuid !== '' ? partition.uuid : path;
}

function chooseOfGroup(
  group: readonly Point[],
  rules: RetentionRules,
  options: RetentionOptions,
  calendar: Calendar,
): RetentionGroup {
  const latestFirst = group
    .map((point) => ({ point, time: Date.parse(point.finished), reasons: [] as string[] }))
    .sort((a, b) => b.time - a.time || (a.point.id < b.point.id ? 1 : -1));

  const counting = latestFirst.filter(({ point, time, reasons }) => {
    if (options.protected?.has(point.id) === true) reasons.push('protected');
    const doubt = doubtOf(point, time, options);
    if (doubt !== undefined) reasons.push(doubt);
    return doubt === undefined;
  });

  counting.slice(0, rules.last ?? 0).forEach(({ reasons }, index) => reasons.push(`last ${index + 1}`));
  for (const period of periods) {
    const most = rules[period] ?? 0;
    const seen = new Set<string>();
    for (const { time, reasons } of counting) {
      const name = calendar.nameOf(period, time);
      if (seen.has(name)) continue;
      if (seen.size >= most) break;
      seen.add(name);
      reasons.push(`${period} ${seen.size} (${name})`);
    }
  }

  const [first] = group;
  return {
    machine: first!.machine.name,
    devices: first!.devices.map(({ path }) => path),
    keep: latestFirst
      .filter(({ reasons }) => reasons.length > 0)
      .map(({ point, reasons }) => ({ point, reasons })),
    forget: latestFirst.filter(({ reasons }) => reasons.length === 0).map(({ point }) => point),
  };
}

/** Why a point counts for no rule. */
function doubtOf(
  { id }: Point,
  time: number,
  { now, vaultCreated, damaged }: RetentionOptions,
): string | undefined {
  if (damaged?.has(id) === true) return 'damaged, forgotten only by name';
  if (time > now + tolerance) return 'its time is in the future';
  if (vaultCreated !== undefined && time < vaultCreated - tolerance)
    return 'its time is before the vault was made';
  return undefined;
}
