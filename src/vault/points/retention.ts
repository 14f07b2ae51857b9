/**
 * Which recovery points to keep and which to forget; pure. Each rule keeps, of the last N hours (days, …) that have a
 * point at all, the last point of each. So nothing is forgotten because time passes without backups.
 *
 * Times come from the writers' clocks, clocks are wrong at times, and a machine that was taken over may add points with
 * any time. So a time that is not believed (later than now, far from the time at which the point came to the store)
 * counts for no rule and its point is kept. And points displace others only after they were in the store for the grace
 * time, in which a person may notice what was added. `now` serves for the first alone, so a wrong clock here forgets
 * nothing more; the grace time goes by the store's clock. A point that came to the store long after its time displaces no
 * other, and is forgotten only if no rule would keep it beside the believed ones, neither at its own time (a slow upload,
 * a vault that was copied) nor at that of its arrival (a clock that was behind).
 *
 * Points of which it is not clear which device they are of (identity.ts) count for no rule either, and are kept.
 */
import { AgentError } from '../../base/errors.ts';
import { formatDuration } from '../../base/duration.ts';
import type { Point } from './point.ts';
import { Calendar, type Period } from './calendar.ts';
import { DeviceIdentities } from './identity.ts';
import { type StoredTimes, isLate, storedTime, timeDoubt } from './times.ts';

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
  /** When each point came to the store, by its clock. Absent: not known, or not to be minded. */
  readonly stored?: StoredTimes | undefined;
  /** Points that are in the store for less displace no others. */
  readonly grace?: Grace | undefined;
  /** Of all points of the vault. Default: of those that are chosen from. */
  readonly identities?: DeviceIdentities | undefined;
}

export interface Grace {
  readonly ms: number;
  /** By the store's clock, milliseconds since 1970. */
  readonly storeNow: number;
  readonly stored: StoredTimes;
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

/** Of the grace time, milliseconds. */
export const defaultGrace = 24 * 3600 * 1000;

const periods = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const satisfies readonly Period[];
/** Throws BAD_USAGE where no rule would keep anything, or a number is not one. */
export function choosePoints(
  points: readonly Point[],
  rules: RetentionRules,
  options: RetentionOptions,
): RetentionGroup[] {
  checkRules(rules);
  const calendar = new Calendar(options.timeZone);
  const identities = options.identities ?? new DeviceIdentities(points);
  const groups = new Map<string, Point[]>();
  for (const point of points) {
    const key = JSON.stringify(point.devices.map((device) => identities.of(point, device).key).sort());
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [point]);
    else group.push(point);
  }
  return [...groups.values()].map((group) =>
    chooseOfGroup(group, rules, { ...options, identities }, calendar),
  );
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

interface Candidate {
  readonly point: Point;
  readonly time: number;
  readonly reasons: string[];
}

function chooseOfGroup(
  group: readonly Point[],
  rules: RetentionRules,
  options: RetentionOptions & { readonly identities: DeviceIdentities },
  calendar: Calendar,
): RetentionGroup {
  const latestFirst = group
    .map((point): Candidate => ({ point, time: Date.parse(point.finished), reasons: [] }))
    .sort((a, b) => b.time - a.time || (a.point.id < b.point.id ? 1 : -1));

  const counting = latestFirst.filter(({ point, reasons }) => {
    if (options.protected?.has(point.id) === true) reasons.push('protected');
    const doubt = doubtOf(point, options);
    if (doubt !== undefined) reasons.push(doubt);
    return doubt === undefined;
  });
  applyRules(counting, rules, calendar, '');
  const isNew = newPoints(options);
  const old = counting.filter(({ point }) => !isNew(point));
  if (old.length < counting.length) {
    const grace = formatGrace(options.grace?.ms ?? 0);
    // What the rules keep of all is among what they keep of the old ones.
    const displaced = old.filter(({ reasons }) => reasons.length === 0);
    const copies = old.map((each): Candidate => ({ ...each, reasons: [] }));
    applyRules(copies, rules, calendar, ` without points of the last ${grace}`);
    for (const each of displaced) each.reasons.push(...copies[old.indexOf(each)]!.reasons);
    for (const { point, reasons } of counting)
      if (isNew(point) && reasons.length === 0) reasons.push(`in the store for less than ${grace}`);
  }

  const believed = old.filter(({ reasons }) => reasons.length > 0);
  for (const { point, time, reasons } of latestFirst) {
    const arrived = storedTime(point.id, options.stored);
    // Not if it is protected, or a rule keeps it.
    if (arrived === undefined || reasons.length !== 1 || !isOnlyLate(point, options) || isNew(point))
      continue;
    const isKept = [time, arrived].some((at) => wouldKeep({ point, time: at }, believed, rules, calendar));
    if (!isKept) reasons.length = 0;
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

/** Adds to the reasons of those that a rule keeps. `candidates`: the latest first. */
function applyRules(
  candidates: readonly Candidate[],
  rules: RetentionRules,
  calendar: Calendar,
  suffix: string,
): void {
  candidates
    .slice(0, rules.last ?? 0)
    .forEach(({ reasons }, index) => reasons.push(`last ${index + 1}${suffix}`));
  for (const period of periods) {
    const most = rules[period] ?? 0;
    const seen = new Set<string>();
    for (const { time, reasons } of candidates) {
      const name = calendar.nameOf(period, time);
      if (seen.has(name)) continue;
      if (seen.size >= most) break;
      seen.add(name);
      reasons.push(`${period} ${seen.size} (${name})${suffix}`);
    }
  }
}

/** If the point counted beside `believed`, and no other in doubt did. */
function wouldKeep(
  candidate: Pick<Candidate, 'point' | 'time'>,
  believed: readonly Candidate[],
  rules: RetentionRules,
  calendar: Calendar,
): boolean {
  const reasons: string[] = [];
  const others = believed.map((each): Candidate => ({ ...each, reasons: [] }));
  const all = [...others, { ...candidate, reasons }].sort((a, b) => b.time - a.time);
  applyRules(all, rules, calendar, '');
  return reasons.length > 0;
}

function newPoints({ grace }: RetentionOptions): (point: Point) => boolean {
  return ({ id }) => {
    const arrived = storedTime(id, grace?.stored);
    return arrived !== undefined && grace !== undefined && grace.storeNow - arrived < grace.ms;
  };
}

function formatGrace(ms: number): string {
  return ms % 3600_000 === 0 ? `${ms / 3600_000} h` : formatDuration(ms);
}

/** Its late arrival is the only reason for which it counts for no rule. */
function isOnlyLate(
  point: Point,
  options: RetentionOptions & { readonly identities: DeviceIdentities },
): boolean {
  const other = doubtOf(point, { ...options, stored: undefined, vaultCreated: undefined });
  return isLate(point, options.stored) && other === undefined;
}

/** Why a point counts for no rule. */
function doubtOf(
  point: Point,
  { damaged, identities, ...times }: RetentionOptions & { readonly identities: DeviceIdentities },
): string | undefined {
  if (damaged?.has(point.id) === true) return 'damaged, forgotten only by name';
  for (const device of point.devices) {
    const { unclear } = identities.of(point, device);
    if (unclear !== undefined)
      return `not clear of which device, since ${unclear.join(' and ')} have one UUID; forgotten only by name`;
  }
  return timeDoubt(point, times);
}
