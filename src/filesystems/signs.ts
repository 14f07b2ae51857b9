/** Signs of life (signs-of-life.ts): their type, and the comparison of two readings. */
import { createHash } from 'node:crypto';

/** By name, as text. */
export type Signs = Readonly<Record<string, string>>;

/** Returns the first sign that differs, with both values; undefined if all are the same. */
export function signDifference(before: Signs, now: Signs): string | undefined {
  for (const name of new Set([...Object.keys(before), ...Object.keys(now)]))
    if (before[name] !== now[name])
      return `its ${name} was ${before[name] ?? 'not there'} and is ${now[name] ?? 'not there'}`;
  return undefined;
}

/** Returns a hash that stands for bytes that are too many to keep. */
export function digest(pieces: Iterable<Uint8Array>): string {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest('hex').slice(0, 32);
}
