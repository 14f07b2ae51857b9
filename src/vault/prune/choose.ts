/** Which packs a prune removes, and which it copies first. Pure. */
import type { PackKind } from '../packs/format.ts';
import type { PackUsage } from './usage.ts';

export interface ChooseOptions {
  /** Bytes at which a pack is closed. */
  readonly packSize: number;
  /** A pack of which more than this share is not needed is copied. From 0 to 1. */
  readonly maxWaste: number;
  /** So many small packs of one kind are merged. */
  readonly mergeAt?: number;
}

export interface Choice {
  /** Nothing in them is needed. */
  readonly unused: readonly PackUsage[];
  /** What is needed of them is copied, then they go too. */
  readonly partial: readonly PackUsage[];
}

const defaultMergeAt = 16;

/** `packs`: those that may be chosen. */
export function choosePacks(packs: readonly PackUsage[], options: ChooseOptions): Choice {
  const unused = packs.filter(({ liveParts }) => liveParts === 0);
  const used = packs.filter(({ liveParts }) => liveParts > 0);
  const partial = used.filter(({ size, liveBytes }) => size - liveBytes > options.maxWaste * size);
  const wasteful = new Set(partial);
  const rest = used.filter((pack) => !wasteful.has(pack));
  for (const kind of ['chunks', 'pages'] as const) partial.push(...smallPacks(rest, kind, options));
  return { unused, partial };
}

/** Those that are small, where they are many: merging them leaves one small pack at most, so it comes to an end. */
function smallPacks(
  packs: readonly PackUsage[],
  wanted: PackKind,
  { packSize, mergeAt = defaultMergeAt }: ChooseOptions,
): PackUsage[] {
  const small = packs.filter(({ kind, size }) => kind === wanted && size < packSize / 2);
  return small.length >= mergeAt ? small : [];
}
