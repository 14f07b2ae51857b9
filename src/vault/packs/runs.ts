/** Joins parts to read into ranges of packs. Pure. */
import type { PartLocation } from '../index/chunk-index.ts';
import { tagLength } from './format.ts';

export interface LocatedPart<T> {
  readonly location: PartLocation;
  readonly item: T;
}

/** A range of a pack and its parts, in order of their offsets. */
export interface Run<T> {
  readonly pack: string;
  readonly offset: number;
  readonly length: number;
  readonly parts: readonly LocatedPart<T>[];
}

/** A gap up to this size is read too, instead of making two requests. */
const mostGap = 128 * 1024;
/** Maximum length of a range, except for a single part. */
const mostLength = 2 * 1024 * 1024;

/** Returns the ranges in the order of their first requested parts. */
export function joinRuns<T>(located: readonly LocatedPart<T>[]): Run<T>[] {
  const packs = new Map<string, { part: LocatedPart<T>; order: number }[]>();
  located.forEach((part, order) => {
    const inPack = packs.get(part.location.pack);
    if (inPack === undefined) packs.set(part.location.pack, [{ part, order }]);
    else inPack.push({ part, order });
  });
  const runs: { run: Run<T>; order: number }[] = [];
  for (const [pack, parts] of packs) {
    parts.sort((a, b) => a.part.location.offset - b.part.location.offset);
    for (let first = 0; first < parts.length;) {
      const { offset } = parts[first]!.part.location;
      let end = endOf(parts[first]!.part);
      let next = first + 1;
      let { order } = parts[first]!;
      for (; next < parts.length; next++) {
        const candidate = parts[next]!;
        if (candidate.part.location.offset > end + mostGap) break;
        if (endOf(candidate.part) > offset + mostLength) break;
        end = Math.max(end, endOf(candidate.part));
        order = Math.min(order, candidate.order);
      }
      const joined = parts.slice(first, next).map(({ part }) => part);
      runs.push({ run: { pack, offset, length: end - offset, parts: joined }, order });
      first = next;
    }
  }
  return runs.sort((a, b) => a.order - b.order).map(({ run }) => run);
}

function endOf<T>({ location }: LocatedPart<T>): number {
  return location.offset + location.encodedLength + tagLength;
}
