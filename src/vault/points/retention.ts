/**
 * Chooses which recovery points to keep and which to forget; pure. Each rule keeps the last point of each of the last
 * N hours (days, …) that have a point. So no point is forgotten only because time passes without backups.
 *
 * Point times come from the writers' clocks. A clock may be wrong, and a compromised machine may add points with any
 * time. A time is not trusted if it is in the future or far from the time at which the point arrived in the store.
 * Such a point counts for no rule and is kept. A point displaces others only after the grace time in the store, so
 * the user can notice added points. `now` is used only to detect future times, so a wrong clock on this machine does
 * not forget more. The grace time uses the store's clock.
 *
 * A point that arrived long after its time displaces no other. It is forgotten only if no rule would keep it beside
 * the trusted points. Both its own time (slow upload, copied vault) and its arrival time (clock behind) are tried.
 *
 * Points whose device is not clear (identity.ts) also count for no rule and are kept.
 */
import { AgentError } from '../../base/errors.ts';
import { formatDuration } from '../../base/duration.ts';
import type { Point } from './point.ts';
import { Calendar, type Period } from './calendar.ts';
import { DeviceIdentities } from './identity.ts';
import { type StoredTimes, isLate, storedTime, timeDoubt } from './times.ts';

/** How many points each rule keeps. Absent or 0: the rule keeps none. Infinity: all. */
export interface RetentionRules {
  /** The last points, whatever their times. */
  readonly last?: number;
  readonly hourly?: number;
  readonly daily?: number;
  /** Weeks begin on Monday. */
  readonly weekly?: number;
  readonly monthly?: number;
  readonly yearly?: number;
}

export interface RetentionOptions {
  /** Milliseconds since 1970. */
  readonly now: number;
  /** Time zone of the hours and days, as an IANA name. Default: this machine's. */
  readonly timeZone?: string | undefined;
  /** When the vault was created, in milliseconds since 1970. */
  readonly vaultCreated?: number | undefined;
  /** IDs of protected points. They count for the rules like any other and are always kept. */
  readonly protected?: ReadonlySet<string> | undefined;
  /** IDs of points that a check found damaged. They displace no whole point, and are forgotten only by name. */
  readonly damaged?: ReadonlySet<string> | undefined;
  /** When each point arrived in the store, by its clock. Absent: unknown, or to be ignored. */
  readonly stored?: StoredTimes | undefined;
  /** Points that arrived less than this ago displace no others. */
  readonly grace?: Grace | undefined;
  /** Over all points of the vault. Default: over the points to choose from. */
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
  /** Text for the user: `last 2`, `daily 3 (2024-05-01)`, `protected`, … At least one. */
  readonly reasons: readonly string[];
}

/** The points of one set of devices of one machine. */
export interface RetentionGroup {
  readonly machine: string;
  readonly devices: readonly string[];
  /** Latest first. */
  readonly keep: readonly Kept[];
  readonly forget: readonly Point[];
}

/** Default grace time in milliseconds. */
export const defaultGrace = 24 * 3600 * 1000;

const periods = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const satisfies readonly Period[];
/** Throws BAD_USAGE if the rules keep nothing, or if a count is not valid. */
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
      throw new AgentError('BAD_USAGE', `${count} is not a valid number of recovery points to keep`);
  if (!counts.some((count) => count > 0))
    throw new AgentError('BAD_USAGE', 'The rules keep nothing: every recovery point would be forgotten', {
      hint: 'add a rule, or name the points to forget',
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
    // The rules keep a subset of these old points when they are applied to all points.
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
    // Skips protected points and points that a rule keeps.
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

/** Adds a reason to each candidate that a rule keeps. `candidates` are latest first. */
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

/** Returns true if a rule would keep the candidate beside the `believed` points alone. */
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

/** Returns true if the late arrival is the only reason why the point counts for no rule. */
function isOnlyLate(
  point: Point,
  options: RetentionOptions & { readonly identities: DeviceIdentities },
): boolean {
  const other = doubtOf(point, { ...options, stored: undefined, vaultCreated: undefined });
  return isLate(point, options.stored) && other === undefined;
}

/** Returns why a point counts for no rule. */
function doubtOf(
  point: Point,
  { damaged, identities, ...times }: RetentionOptions & { readonly identities: DeviceIdentities },
): string | undefined {
  if (damaged?.has(point.id) === true) return 'damaged, forgotten only by name';
  for (const device of point.devices) {
    const { unclear } = identities.of(point, device);
    if (unclear !== undefined)
      return `device is not clear, because ${unclear.join(' and ')} have one UUID; forgotten only by name`;
  }
  return timeDoubt(point, times);
}
