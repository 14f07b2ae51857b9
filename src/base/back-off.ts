/** Exponential back-off: the pauses between attempts grow up to a ceiling. */

export interface BackOff {
  /** The first pause and the longest one, milliseconds. */
  readonly firstMs: number;
  readonly longestMs: number;
  /**
   * The part of each pause that is random, from 0 to 1, so that many clients do not return at the same moment. 1 is known
   * as full jitter.
   */
  readonly jitter: number;
}

/** Returns the pause after this many failures in a row (from 1), in whole milliseconds. `random`: a number in [0, 1). */
export function pauseAfter(
  failures: number,
  { firstMs, longestMs, jitter }: BackOff,
  random: () => number = Math.random,
): number {
  const longest = Math.min(longestMs, firstMs * 2 ** (failures - 1));
  return Math.ceil(longest * (1 - jitter + jitter * random()));
}
