/**
 * What is believed of the time of a recovery point; pure. `finished` is by the clock of the machine that wrote the point,
 * which may be wrong, and which a machine that was taken over sets as it likes. The time at which the point came to the
 * store is by the store's clock (`StoredObject.modified`), which such a machine cannot set in a bucket.
 */
import type { Point } from './point.ts';

/** Milliseconds since 1970 by id of the point. 0 if the store does not say. */
export type StoredTimes = ReadonlyMap<string, number>;

/** Two machines' clocks may differ by this and nobody is to be bothered, milliseconds. */
export const clockTolerance = 15 * 60 * 1000;

/**
 * A point comes to the store when its job has sent everything: hours after its instant, if a snapshot is copied. From this
 * on the two times do not belong together, milliseconds.
 */
export const farApart = 24 * 3600 * 1000;

export interface TimeFacts {
  /** Milliseconds since 1970, by the clock here. */
  readonly now: number;
  /** Absent: nothing is known of the store's times. */
  readonly stored?: StoredTimes | undefined;
  /** When the vault was made, milliseconds since 1970; for points whose time in the store is not known. */
  readonly vaultCreated?: number | undefined;
}

/** Why the time of a point is not believed; undefined if it is. */
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
    return `its time is far from the store's, which got it at ${when}Z`;
  }
  // A vault that was made by a clock that was ahead proves nothing.
  const isBefore =
    vaultCreated !== undefined &&
    vaultCreated <= now + clockTolerance &&
    time < vaultCreated - clockTolerance;
  return isBefore ? 'its time is before the vault was made' : undefined;
}

/** The point says that it was finished long after it came to the store, so its clock was ahead. */
export function isAhead({ id, finished }: Pick<Point, 'id' | 'finished'>, stored?: StoredTimes): boolean {
  const arrived = storedTime(id, stored);
  return arrived !== undefined && Date.parse(finished) - arrived > farApart;
}

/**
 * The point came to the store long after its time: a slow first backup, a vault that was copied, a clock that was behind,
 * or a time that a machine that was taken over has made up.
 */
export function isLate({ id, finished }: Pick<Point, 'id' | 'finished'>, stored?: StoredTimes): boolean {
  const arrived = storedTime(id, stored);
  return arrived !== undefined && arrived - Date.parse(finished) > farApart;
}

/**
 * The time by which `latest` goes: no point was finished after it came to the store. So one of the year 2099 is no later
 * than its arrival, and vaults that were copied (all objects are new) go by the points' own times.
 */
export function believedTime({ id, finished }: Pick<Point, 'id' | 'finished'>, stored?: StoredTimes): number {
  return Math.min(Date.parse(finished), storedTime(id, stored) ?? Number.POSITIVE_INFINITY);
}

export function storedTime(id: string, stored: StoredTimes | undefined): number | undefined {
  const time = stored?.get(id) ?? 0;
  return time > 0 ? time : undefined;
}
