/**
 * Decides whether something grows over a long run, only by a comparison of samples. The first third is left
 * out, since caches and the history of jobs fill up to their limits there. The median of the last third may
 * exceed the median of the second third only by the tolerance. Medians are used because a sample may fall
 * into the end of a job.
 */

/** One measurement of everything, by name. */
export type Sample = Readonly<Record<string, number>>;

/**
 * The allowed difference of the median of the last third above that of the second third: the larger of both
 * values.
 */
export interface Tolerance {
  readonly absolute: number;
  readonly share: number;
}

export interface Growth {
  readonly name: string;
  readonly first: number;
  readonly second: number;
  readonly last: number;
  readonly most: number;
  /** The highest allowed value of `last`. */
  readonly limit: number;
  readonly grew: boolean;
}

/** Returns one row for each name with a tolerance. Needs at least six samples. */
export function growthOf(
  samples: readonly Sample[],
  tolerances: Readonly<Record<string, Tolerance>>,
): Growth[] {
  const third = Math.floor(samples.length / 3);
  if (third < 2) throw new RangeError(`${samples.length} samples do not show growth; 6 are the least`);
  return Object.entries(tolerances).map(([name, { absolute, share }]) => {
    const values = samples.map((sample) => {
      const value = sample[name];
      if (value === undefined) throw new RangeError(`a sample has no ${name}`);
      return value;
    });
    const second = median(values.slice(third, 2 * third));
    const last = median(values.slice(-third));
    const limit = second + Math.max(absolute, second * share);
    const first = median(values.slice(0, third));
    return { name, first, second, last, most: Math.max(...values), limit, grew: last > limit };
  });
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
