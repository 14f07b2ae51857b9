/** Finds faults in the ranges of a partition table: ranges outside the disk, or overlaps. */
export interface NamedRange {
  readonly name: string;
  /** Bytes, `end` excluded. */
  readonly start: number;
  readonly end: number;
}

/** Returns the first fault, for the user; undefined if all lie within `[from, to)` without overlaps. */
export function rangeProblem(ranges: readonly NamedRange[], from: number, to: number): string | undefined {
  const sorted = [...ranges].sort((a, b) => a.start - b.start || a.end - b.end);
  for (const { name, start, end } of sorted) {
    if (end <= start) return `${name} ends at byte ${end}, before its start ${start}`;
    if (start < from) return `${name} begins at byte ${start}, before ${from} where partitions may begin`;
    if (end > to) return `${name} ends at byte ${end}, after ${to} where partitions must end`;
  }
  for (const [i, range] of sorted.entries()) {
    const next = sorted[i + 1];
    if (next !== undefined && next.start < range.end)
      return `${range.name} ends at byte ${range.end}, but ${next.name} begins at ${next.start}`;
  }
  return undefined;
}
