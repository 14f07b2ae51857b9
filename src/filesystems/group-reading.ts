/** Types and the walk that the readers of used maps in groups share (ext/groups.ts, xfs/groups.ts). */
import type { Extent } from '../base/extents.ts';
import type { ReadAt } from '../block/source.ts';
import { ExtentBatches } from './extent-batches.ts';
import type { GroupedMap, MountState } from './used-map.ts';

export interface GroupReading<Superblock> {
  readonly sb: Superblock;
  readonly readAt: ReadAt;
  readonly deviceSize: number;
  readonly state: MountState;
  readonly signal: AbortSignal | undefined;
}

export interface GroupOptions<KeptGroups> {
  /** The facts from which a later reading continues. Undefined if the map has no later reading. */
  readonly kept: KeptGroups | undefined;
  /** See GroupedMap. */
  readonly stale?: readonly number[];
  readonly whyAll?: string | undefined;
}

/** Yields all used extents of the groups, as `UsedMap.extents`. */
export async function* groupExtents(groups: Pick<GroupedMap, 'read'>): AsyncGenerator<readonly Extent[]> {
  const batches = new ExtentBatches();
  for await (const parts of groups.read()) {
    for (const { extents } of parts)
      for (const { offset, length } of extents) batches.add(offset, offset + length);
    if (batches.length > 0) yield batches.take();
  }
  const rest = batches.finish();
  if (rest.length > 0) yield rest;
}
