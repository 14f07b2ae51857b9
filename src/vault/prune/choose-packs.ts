/** Chooses which packs a prune removes, and from which it copies first. Pure. */
import type { PackKind } from '../packs/format.ts';
import type { PackUsage } from './pack-usage.ts';

export interface ChooseOptions {
  /** In bytes; a pack is closed when it reaches this size. */
  readonly packSize: number;
  /** Packs of which more than this share is unused are copied. From 0 to 1. */
  readonly maxWaste: number;
  /** This many small packs of one kind are merged. */
  readonly mergeAt?: number;
}

export interface Choice {
  /** Packs without live data. */
  readonly unused: readonly PackUsage[];
  /** Packs whose live data is copied before they are removed. */
  readonly partial: readonly PackUsage[];
}

const defaultMergeAt = 16;

/** `packs` are the candidates. */
export function choosePacks(packs: readonly PackUsage[], options: ChooseOptions): Choice {
  const unused = packs.filter(({ liveParts }) => liveParts === 0);
  const used = packs.filter(({ liveParts }) => liveParts > 0);
  const partial = used.filter(({ size, liveBytes }) => size - liveBytes > options.maxWaste * size);
  const wasteful = new Set(partial);
  const rest = used.filter((pack) => !wasteful.has(pack));
  for (const kind of ['chunks', 'pages'] as const) partial.push(...smallPacks(rest, kind, options));
  return { unused, partial };
}

/** Returns the small packs if there are many. Merging leaves at most one small pack, so it is not repeated forever. */
function smallPacks(
  packs: readonly PackUsage[],
  wanted: PackKind,
  { packSize, mergeAt = defaultMergeAt }: ChooseOptions,
): PackUsage[] {
  const small = packs.filter(({ kind, size }) => kind === wanted && size < packSize / 2);
  return small.length >= mergeAt ? small : [];
}
