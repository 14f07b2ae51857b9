/**
 * Decides whether the time of a recovery point is trusted; pure. `finished` comes from the clock of the machine that
 * wrote the point. That clock may be wrong, and a compromised machine can set any time. The arrival time comes from
 * the store's clock (`StoredObject.modified`), which such a machine cannot set in a bucket.
 */
import type { Point } from './point.ts';

/** Milliseconds since 1970 by point ID; 0 if the store does not report it. */
export type StoredTimes = ReadonlyMap<string, number>;

/** Allowed difference between the clocks of two machines, in milliseconds. */
export const clockTolerance = 15 * 60 * 1000;

/**
 * Allowed difference between the time of a point and its arrival, in milliseconds. A point arrives when its job has
 * sent everything, which may be hours after its time if a snapshot is copied.
 */
export const farApart = 24 * 3600 * 1000;

export interface TimeFacts {
  /** By the clock of this machine, milliseconds since 1970. */
  readonly now: number;
  /** Absent: the store's times are not known. */
  readonly stored?: StoredTimes | undefined;
  /** When the vault was created, milliseconds since 1970. Used for points whose arrival is not known. */
  readonly vaultCreated?: number | undefined;
}

/** Returns why the time of a point is not trusted; undefined if it is trusted. */
export function timeDoubt(
  { id, finished }: Pick<Point, 'id' | 'finished'>,
  { now, stored, vaultCreated }: TimeFacts,
): string | undefined {
  const time = Date.parse(finished);
  if (time > now + clockTolerance) return 'its time is in the future';
  const arrived = storedTime(id, stored);
  if (arrived !== undefined) {
    if (Math.abs(time - arrived) <= farApart) return undefined;
    const when = new Date(arrived).toISOString().slice(0, 16);
    return `its time is far from its arrival in the store at ${when}Z`;
  }
  // If the vault was created by a clock that was ahead, its creation time proves nothing.
  const isBefore =
    vaultCreated !== undefined &&
    vaultCreated <= now + clockTolerance &&
    time < vaultCreated - clockTolerance;
  return isBefore ? 'its time is before the vault was created' : undefined;
}

/** Returns true if `finished` is long after the arrival, so the writer's clock was ahead. */
export function isAhead({ id, finished }: Pick<Point, 'id' | 'finished'>, stored?: StoredTimes): boolean {
  const arrived = storedTime(id, stored);
  return arrived !== undefined && Date.parse(finished) - arrived > farApart;
}

/**
 * Returns true if the point arrived long after its time. Reasons are a slow first backup, a copied vault, a clock
 * that was behind, or a false time of a compromised machine.
 */
export function isLate({ id, finished }: Pick<Point, 'id' | 'finished'>, stored?: StoredTimes): boolean {
  const arrived = storedTime(id, stored);
  return arrived !== undefined && arrived - Date.parse(finished) > farApart;
}

/**
 * Returns the time that `latest` uses: no point finished after its arrival. So a point of the year 2099 is no later
 * than its arrival, and copied vaults (whose objects are all new) use the points' own times.
 */
export function believedTime({ id, finished }: Pick<Point, 'id' | 'finished'>, stored?: StoredTimes): number {
  return Math.min(Date.parse(finished), storedTime(id, stored) ?? Number.POSITIVE_INFINITY);
}

export function storedTime(id: string, stored: StoredTimes | undefined): number | undefined {
  const time = stored?.get(id) ?? 0;
  return time > 0 ? time : undefined;
}
