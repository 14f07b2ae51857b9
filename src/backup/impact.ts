/** How much a backup may slow down other work on the machine: the values of `--impact` (docs/impact.md). */

export type Impact = 'low' | 'normal' | 'high';

/** How passes are held back in favour of other work. The rounds before the freeze and the freeze itself never are. */
export interface ImpactLevel {
  /** The share of its time that a thread may spend reading: at most, and at least. Above 0, at most 1. */
  readonly most: number;
  readonly least: number;
  /**
   * Reads are held back if writes of other programs take more than `slower` times as long as while nothing is read, and
   * also more than `slackMs` milliseconds longer.
   */
  readonly slower: number;
  readonly slackMs: number;
  /** Milliseconds of best-effort reads that follow each millisecond which a read of class idle had to wait. */
  readonly amends: number;
  /** Nice value of the copying threads; 0: that of the daemon. */
  readonly nice: number;
}

/** Undefined: as fast as possible. */
export const impactLevels: Readonly<Record<Impact, ImpactLevel | undefined>> = {
  low: { most: 0.5, least: 0.05, slower: 1.25, slackMs: 0.1, amends: 0.25, nice: 10 },
  normal: { most: 1, least: 0.2, slower: 2, slackMs: 0.5, amends: 1, nice: 0 },
  high: undefined,
};
