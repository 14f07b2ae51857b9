/** How much a backup may be in the way of other work on the machine: what `--impact` means (docs/impact.md). */

export type Impact = 'low' | 'normal' | 'high';

/** How passes that other work need not wait for are held back. The rounds before the freeze and the freeze never are. */
export interface ImpactLevel {
  /** Of the time, what a thread may spend reading: at most, and at least. Above 0, at most 1. */
  readonly most: number;
  readonly least: number;
  /** Writes of others may take so many times as long as while nothing is read, */
  readonly slower: number;
  /** or so many milliseconds longer. */
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
