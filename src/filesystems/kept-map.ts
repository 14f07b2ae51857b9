/**
 * A used map that is kept, and brought up to date by reading again only the groups that may have changed.
 *
 * It is right only if the caller keeps to "take, then read". `written` must hold all writes since the reading before
 * this one *began*, also writes during that reading. If a source of a group was not written since then, it is as it was
 * read. If there is any doubt (another layout, an inconsistent group, an error), everything is read.
 */
import type { Bitmap } from '../base/bitmap.ts';
import type { ReadAt } from '../block/source.ts';
import { type MarkedMap, everythingMarked, markExtents } from './mark-used.ts';
import { type ReadUsedMapOptions, readUsedMap } from './read-used-map.ts';
import type { GroupPart, GroupedMap, UsedMap } from './used-map.ts';
import { UnchangedReads } from './unchanged-reads.ts';
import { unreadableReason } from './verified-used-map.ts';

export interface KeptReading extends MarkedMap {
  /** The number of groups of the filesystem, and of those that were read; 0 if the map has no groups. */
  readonly groups: number;
  readonly groupsRead: number;
  /** The number of groups of a running filesystem that were inconsistent and count as used. */
  readonly groupsInFlux: number;
  /** Why all was read although an earlier reading was kept; undefined if none was kept, or if it was used. */
  readonly whyAll: string | undefined;
}

type Described = Pick<UsedMap, 'filesystem' | 'everything' | 'warnings'>;

export class KeptMap {
  readonly #bitmap: Bitmap;
  readonly #reads = new UnchangedReads();
  #grouped: GroupedMap | undefined;
  /** Bytes that each group uses. */
  #used = new Float64Array(0);
  /** Flags: the group uses the unit at its begin (1) and at its end (2). Neighbours may share these units. */
  #edges = new Uint8Array(0);

  /** `bitmap` holds the map after each reading. No other code may change it. */
  constructor(bitmap: Bitmap) {
    this.#bitmap = bitmap;
  }

  /**
   * Reads the map. `written` undefined: no earlier reading is used. Throws as `readUsedMap` does, and keeps nothing
   * then.
   */
  async read(
    readAt: ReadAt,
    sectorSize: number,
    options: ReadUsedMapOptions,
    written: Bitmap | undefined,
  ): Promise<KeptReading> {
    const grouped = written && this.#grouped;
    this.#grouped = undefined;
    const { size } = this.#bitmap;
    const isWritten = (offset: number, length: number): boolean => written?.touches(offset, length) ?? true;
    const earlier = grouped && { grouped, isWritten };
    this.#reads.begin(isWritten);
    const map = await readUsedMap(this.#reads.over(readAt), size, sectorSize, {
      ...options,
      keep: true,
      earlier,
    });
    const { filesystem, everything, warnings } = map;
    let outcome;
    try {
      outcome = await this.#mark(map);
    } catch (error) {
      return { ...everythingMarked(this.#bitmap, map, unreadableReason(error)), ...ungrouped };
    }
    const lost = grouped !== undefined && map.grouped === undefined ? { whyAll: warnings.join() } : {};
    return { filesystem, everything, warnings, ...outcome, ...lost };
  }

  async #mark(map: UsedMap): Promise<Omit<KeptReading, keyof Described>> {
    const { grouped } = map;
    if (grouped === undefined || !isWiderThan(grouped, this.#bitmap.unit)) {
      this.#bitmap.fill(false);
      return { ...ungrouped, usedBytes: await markExtents(this.#bitmap, map.extents) };
    }
    if (grouped.stale === undefined) {
      this.#bitmap.fill(false);
      this.#used = new Float64Array(grouped.count);
      this.#edges = new Uint8Array(grouped.count);
    }
    let current = -1;
    let groupsRead = 0;
    let groupsInFlux = 0;
    for await (const parts of grouped.read())
      for (const part of parts) {
        if (part.group !== current) this.#clear(grouped, part.group);
        current = part.group;
        this.#add(grouped, part);
        if (part.last) groupsRead++;
        if (part.inFlux === true) groupsInFlux++;
      }
    const expected = grouped.stale?.length ?? grouped.count;
    if (groupsRead !== expected) throw new Error(`${groupsRead} groups were read, not ${expected}`);
    this.#grouped = grouped;
    const usedBytes = this.#used.reduce((sum, used) => sum + used, 0);
    return { usedBytes, groups: grouped.count, groupsRead, groupsInFlux, whyAll: grouped.whyAll };
  }

  /** Clears the bits of the group. Units that neighbours share keep the bits of the neighbours. */
  #clear(grouped: GroupedMap, group: number): void {
    const { start, end } = this.#rangeOf(grouped, group);
    const { unit } = this.#bitmap;
    this.#used[group] = 0;
    this.#edges[group] = 0;
    const first = Math.floor(start / unit) * unit;
    const last = Math.ceil(end / unit) * unit;
    this.#bitmap.clear(first, last - first);
    if (first < start && (this.#edges[group - 1]! & atEnd) !== 0) this.#bitmap.mark(first, 1);
    if (last > end && group < grouped.count - 1 && (this.#edges[group + 1]! & atBegin) !== 0)
      this.#bitmap.mark(last - unit, 1);
  }

  #add(grouped: GroupedMap, { group, extents }: GroupPart): void {
    const { start, end } = this.#rangeOf(grouped, group);
    const { unit } = this.#bitmap;
    const firstEnd = Math.floor(start / unit) * unit + unit;
    const lastStart = Math.ceil(end / unit) * unit - unit;
    let used = 0;
    let edges = 0;
    for (const { offset, length } of extents) {
      if (offset < start || offset + length > end)
        throw new Error(`an extent ${offset}+${length} of group ${group}, which is ${start} to ${end}`);
      this.#bitmap.mark(offset, length);
      used += length;
      if (offset < firstEnd) edges |= atBegin;
      if (offset + length > lastStart) edges |= atEnd;
    }
    this.#used[group]! += used;
    this.#edges[group]! |= edges;
  }

  #rangeOf(grouped: GroupedMap, group: number): { readonly start: number; readonly end: number } {
    const end = group === grouped.count - 1 ? this.#bitmap.size : grouped.startOf(group + 1);
    return { start: grouped.startOf(group), end };
  }
}

const atBegin = 1;
const atEnd = 2;

/** The fields for a map without groups. */
export const ungrouped = { groups: 0, groupsRead: 0, groupsInFlux: 0, whyAll: undefined };

/**
 * Returns whether no unit lies in three groups: its bits could not be separated. All groups except the last have one
 * length.
 */
function isWiderThan(grouped: GroupedMap, unit: number): boolean {
  if (grouped.count < 2) return true;
  const second = grouped.startOf(1);
  return second >= unit && (grouped.count < 3 || grouped.startOf(2) - second >= unit);
}
